"""The options of training a funnel that are not those of a trainer."""

from dataclasses import dataclass, field

from .text_options import TextOptions


SHAPES = (
    *("kind", "matryoshka_dims", "encoder_sizes", "predictor_sizes", "decoder_sizes"),
    *("num_couplings", "coupling_sizes", "geometry"),
)


@dataclass
class FunnelRecipe(TextOptions):
    """What [`train_funnel`] does; every field is also a flag of `hf-matryoshka train funnel` and a YAML key.

    The embeddings come from `vectors`, or `base_model_path` makes them of `texts`.

    Raises:
        ValueError: If a field has no valid value, or two contradict each other.
    """

    vectors: str | None = field(
        default=None,
        metadata={"help": "File of embeddings (.arrow, .npy: mapped, not read into memory; .parquet)."},
    )
    base_model_path: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={"help": "Model whose embeddings they are, and which embeds texts: a folder or a Hub id."},
    )
    embedding_convention: str | None = field(
        default=None,
        metadata={
            "help": "How it embeds: 'raw_mean' (mean of the tokens, as for vec2text), 'mean_norm' (of unit length) "
            "or 'st_dense_norm' (with its dense layer); by default as the SentenceTransformer does."
        },
    )
    preset: str | None = field(
        default=None,
        metadata={
            "help": "'original': the shape of the first cascading funnel; 'original_16m': 16,141,152 parameters."
        },
    )
    kind: str | None = field(
        default=None,
        metadata={"help": "'residual' (default): PCA plus networks; 'cascade'; 'flow': with exact densities."},
    )
    matryoshka_dims: list[int] | None = field(
        default=None, metadata={"help": "Widths of the latent after each stage, the levels; 16, 32, ..., 128."}
    )
    encoder_sizes: list[int] | None = field(default=None, metadata={"help": "Hidden widths of encoders; 1024."})
    predictor_sizes: list[int] | None = field(default=None, metadata={"help": "Of predictors; 256,256."})
    decoder_sizes: list[int] | None = field(default=None, metadata={"help": "Of the decoder; 1024,1024."})
    num_couplings: int | None = field(default=None, metadata={"help": "Affine couplings of a flow; 6."})
    coupling_sizes: list[int] | None = field(default=None, metadata={"help": "Hidden widths of each; 512."})
    geometry: str | None = field(
        default=None,
        metadata={"help": "'sphere' (default): only directions count, the loss is the cosine; 'euclidean'."},
    )
    funnel_path: str | None = field(
        default=None, metadata={"help": "Trained funnel to go on with; its shape is read."}
    )
    choose_gates: bool = field(
        default=True,
        metadata={
            "help": "Choose the gates of a residual funnel on validation embeddings, so that no level is below PCA."
        },
    )
    validation_fraction: float = field(
        default=0.1, metadata={"help": "Part of the embeddings held out for gates and the losses that are reported."}
    )
    test_fraction: float = field(
        default=0.1, metadata={"help": "Part of the embeddings held out for the reconstruction that is reported."}
    )

    def __post_init__(self):
        if self.vectors is None:
            self.check_texts()
        elif self.texts:
            raise ValueError("embeddings come from vectors or from texts; leave one out")
        for name in ("validation_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 0.5:
                raise ValueError(f"{name} must be in [0, 0.5), but is {getattr(self, name)}")
        if self.funnel_path is not None:
            for name in ("preset", *SHAPES):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is read from funnel_path; leave it out")

    def shape(self) -> dict:
        """What was said of the model."""
        return {name: getattr(self, name) for name in SHAPES if getattr(self, name) is not None}
