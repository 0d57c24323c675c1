"""The options of distilling a Matryoshka Mamba encoder that are not those of a trainer."""

from dataclasses import dataclass, field

from .text_options import TextOptions


@dataclass
class MambaRecipe(TextOptions):
    """What [`train_mamba`] does; every field is also a flag of `hf-matryoshka train mamba` and a YAML key.

    Raises:
        ValueError: If a field has no valid value.
    """

    teacher_model_path: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={"help": "Sentence-embedding model to distil, a folder or a Hub id; its tokenizer is taken over."},
    )
    rotate_teacher: bool = field(
        default=True,
        metadata={
            "help": "Turn the teacher's embeddings so that their leading coordinates hold most of them, which keeps "
            "all similarities; without it the trained embeddings are the teacher's own where the dimension is."
        },
    )
    init_embeddings: bool | None = field(
        default=None,
        metadata={
            "help": "Start the token embeddings from the teacher's (the principal directions of wider ones; narrower "
            "ones are filled up); by default where they are as wide as hidden_size."
        },
    )
    init_head: bool = field(
        default=True,
        metadata={
            "help": "Start as the linear map of the mean token embedding that is nearest to the teacher: blocks that "
            "add nothing at first, and a fitted head; otherwise all of them start at random."
        },
    )
    pairs: list[str] | None = field(
        default=None,
        metadata={"help": "Files with pairs of texts for the contrastive loss (.jsonl, .csv, .tsv, or .gz of these)."},
    )
    pair_fields: list[str] | None = field(
        default=None,
        metadata={
            "help": "Fields or columns of the two, such as query:answer or 0:1, one for all files or one a file "
            "('anchor:positive')."
        },
    )
    hidden_size: int = field(default=384, metadata={"help": "Width of the residual stream."})
    num_hidden_layers: int = field(default=6, metadata={"help": "Blocks."})
    head_dim: int = field(default=64, metadata={"help": "Channels of a head."})
    num_heads: int | None = field(
        default=None, metadata={"help": "Heads of a mixer; expand * hidden_size / head_dim by default."}
    )
    expand: int = field(default=2, metadata={"help": "Channels of all heads, as a multiple of hidden_size."})
    state_size: int = field(default=64, metadata={"help": "State of a channel."})
    conv_kernel: int = field(default=4, metadata={"help": "Tokens that the convolution before a scan sees."})
    intermediate_size: int | None = field(
        default=None, metadata={"help": "Columns of the SwiGLU networks; twice hidden_size by default, 0: none."}
    )
    hidden_dropout_prob: float = field(default=0.1, metadata={"help": "Dropout of the residual stream."})
    direction: str = field(
        default="causal",
        metadata={
            "help": "'causal': exact streaming; 'bidirectional'; 'block_bidirectional': streaming block by block."
        },
    )
    block_size: int = field(default=256, metadata={"help": "Tokens of such a block."})
    widths: list[float] | None = field(
        default=None,
        metadata={
            "help": "Levels: shares of the heads and columns, smallest first, the last 1; one head, a quarter, half "
            "and all by default."
        },
    )
    matryoshka_dims: list[int] | None = field(
        default=None, metadata={"help": "Output dimensions, smallest first; 64, 128, 256, 512, 768, 1024, 1536."}
    )
    dim_widths: list[float] | None = field(
        default=None,
        metadata={"help": "The width that computes each dimension where none is asked for; the full one by default."},
    )
    chunk_size: int = field(default=64, metadata={"help": "Tokens that a scan takes at once."})
    segment_length: int = field(
        default=512, metadata={"help": "Longer texts are encoded in segments of so many tokens; none in training."}
    )
    initializer_range: float | None = field(
        default=None, metadata={"help": "Spread of random weights; by default 0.02 * (768 / hidden_size)**0.5."}
    )

    def __post_init__(self):
        self.check_texts()
        fields, count = self.pair_fields or [], len(self.pairs or [])
        if fields and not count:
            raise ValueError("pair_fields says where the texts of pairs are; give pairs")
        if fields and len(fields) not in (1, count):
            raise ValueError(f"pair_fields has {len(fields)} names for {count} files; give one, or one a file")
        for names in fields:
            if len(names.split(":")) != 2 or not all(names.split(":")):
                raise ValueError(f"pair_fields {names!r} must name two fields or columns, such as query:answer or 0:1")
