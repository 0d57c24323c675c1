"""The options of training a Matryoshka GPT that are not those of a trainer."""

from dataclasses import dataclass, field

from .corpus_options import CorpusOptions


ROWS = ("documents", "windows")
CHARACTERS = "characters"
SHAPES = (
    *(
        "blocks",
        "norm_groups",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
    ),
    *("intermediate_size", "rope_theta", "tie_word_embeddings", "attention_dropout", "initializer_range"),
)
NESTING = (
    *("nesting", "doll_sizes", "doll_intermediate_sizes", "doll_layers", "layer_order"),
    *("nested_heads", "rope_order"),
)


@dataclass
class GPTRecipe(CorpusOptions):
    """What [`train_gpt`] does; every field is also a flag of `hf-matryoshka train gpt` and a YAML key.

    The texts come from one of `texts`, `dataset_name` and `pretokenized_path`; the model from `base_model_path`, or it
    starts from random weights of the given shape.

    Raises:
        ValueError: If a field has no valid value, or two contradict each other.
    """

    rows: str = field(
        default="documents",
        metadata={
            "help": "'documents': rows of whole documents that do not see each other; 'windows': each file is one "
            "stream (a .txt file with its line breaks), its end held out, random windows of it trained on."
        },
    )
    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "A folder or a Hub id, or 'characters'; by default the checkpoint's, or one trained on the texts."
        },
    )
    vocab_size: int = field(default=8192, metadata={"help": "Tokens of a tokenizer that is trained on the texts."})
    base_model_path: str | None = field(
        default=None,
        metadata={"help": "Llama to nest, or a Matryoshka GPT to go on with; its shape is read."},
    )
    gguf_file: str | None = field(default=None, metadata={"help": "File of base_model_path in GGUF format."})
    distil_from_base: bool = field(
        default=False,
        metadata={"help": "Let the checkpoint teach every level, instead of the largest level the smaller ones."},
    )
    sort: bool | None = field(
        default=None,
        metadata={"help": "Sort channels and neurons by importance first; by default those of a Llama."},
    )
    glue_only: bool = field(
        default=False, metadata={"help": "Train nothing but the glue of a checkpoint of hf-matryoshka combine."}
    )
    blocks: str | None = field(
        default=None,
        metadata={"help": "'llama' (default), or 'gpt2': norms without weights, ReLU networks, learned positions."},
    )
    hidden_size: int | None = field(default=None, metadata={"help": "Width of the residual stream; 256."})
    num_hidden_layers: int | None = field(default=None, metadata={"help": "Layers; 6."})
    num_attention_heads: int | None = field(default=None, metadata={"help": "Heads; one for 64 of the width."})
    num_key_value_heads: int | None = field(default=None, metadata={"help": "Heads of keys and values; all."})
    head_dim: int | None = field(default=None, metadata={"help": "Width of a head; hidden_size / heads."})
    intermediate_size: int | None = field(default=None, metadata={"help": "SwiGLU columns; 4 times the width."})
    rope_theta: float | None = field(
        default=None, metadata={"help": "Base of the rotary frequencies; 10000. Short texts learn better with less."}
    )
    tie_word_embeddings: bool | None = field(
        default=None, metadata={"help": "Whether the head is the embedding table; yes."}
    )
    attention_dropout: float | None = field(default=None, metadata={"help": "Dropout of the attention's weights; 0."})
    initializer_range: float | None = field(default=None, metadata={"help": "Spread of random weights; 0.02."})
    norm_groups: int | None = field(
        default=None, metadata={"help": "Groups of channels that norms are taken of one by one; 1."}
    )
    nesting: str | None = field(
        default=None,
        metadata={"help": "'full' (default): a doll is smaller in everything; 'output': only what the head reads."},
    )
    doll_sizes: list[int] | None = field(
        default=None, metadata={"help": "Widths of the levels, smallest first; a quarter, half and all."}
    )
    doll_intermediate_sizes: list[int] | None = field(
        default=None, metadata={"help": "Their SwiGLU columns; in proportion."}
    )
    doll_layers: list[int] | None = field(default=None, metadata={"help": "Their layers; all."})
    layer_order: list[int] | None = field(
        default=None, metadata={"help": "All layers, from 0: a doll of n layers runs the first n of these; in order."}
    )
    nested_heads: str | None = field(
        default=None, metadata={"help": "A doll has narrower heads ('head_dim', default) or fewer ('heads')."}
    )
    rope_order: str | None = field(
        default=None,
        metadata={
            "help": "Frequencies of a doll: 'nested' (default), those of a stock head of its size; 'prefix', the "
            "highest."
        },
    )
    hierarchy: str | None = field(
        default=None,
        metadata={
            "help": "YAML file of groups of tokens by prefix length, which short prefixes learn to predict: lists of "
            "them, or depths of WordNet."
        },
    )
    emergent_widths: list[int] | None = field(
        default=None,
        metadata={
            "help": "Prefix lengths whose groups of tokens are clusters of the embeddings, renewed in training."
        },
    )
    emergent_clusters: list[int] | None = field(
        default=None, metadata={"help": "Numbers of these clusters, one a length; not fewer for a longer prefix."}
    )
    attn_implementation: str = field(default="sdpa", metadata={"help": "Attention: 'sdpa', 'eager', …"})

    def __post_init__(self):
        self.check_corpus()
        if self.rows not in ROWS:
            raise ValueError(f"rows {self.rows!r} does not exist; choose one of {', '.join(ROWS)}")
        if self.rows == "windows":
            for name in ("dataset_name", "pretokenized_path", "balance"):
                if getattr(self, name):
                    raise ValueError(f"rows 'windows' reads files of text, so {name} has no meaning; give texts")
        if self.tokenizer == CHARACTERS and self.texts is None:
            raise ValueError("the tokenizer 'characters' has those of the files, so it needs texts")
        for name in SHAPES:
            value = getattr(self, name)
            if value is not None and self.base_model_path is not None:
                raise ValueError(f"{name} is read from base_model_path; leave it out")
            if name not in ("blocks", "attention_dropout", "tie_word_embeddings") and value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, but is {value}")
        for name in ("sort", "gguf_file", "distil_from_base", "glue_only"):
            if getattr(self, name) and self.base_model_path is None:
                raise ValueError(f"{name} is about a checkpoint, so it needs base_model_path")
        if self.hierarchy and self.emergent_widths:
            raise ValueError("groups of tokens are those of hierarchy or emerge (emergent_widths); leave one out")
        lengths = [len(numbers or []) for numbers in (self.emergent_widths, self.emergent_clusters)]
        if lengths[0] != lengths[1]:
            raise ValueError(f"emergent_widths has {lengths[0]} numbers, but emergent_clusters {lengths[1]}")

    @property
    def has_hierarchy(self) -> bool:
        """Whether prefixes learn groups of tokens."""
        return bool(self.hierarchy or self.emergent_widths)
