"""The options of training a nested masked language model that are not those of a trainer."""

from dataclasses import dataclass, field

from .budget_options import BudgetOptions
from .corpus_options import CorpusOptions
from .dds_options import DdsOptions


OBJECTIVES = ("masked_lm", "embedding")
ARCHITECTURES = ("modernbert", "bert")
SHAPES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@dataclass
class DeltaRecipe(CorpusOptions, DdsOptions, BudgetOptions):
    """What [`train_delta`] does; every field is also a flag of `hf-matryoshka train delta` and a YAML key.

    The texts come from one of `texts`, `dataset_name` and `pretokenized_path`; the model from `base_model_path`, or it
    starts from random weights of the given shape.

    Raises:
        ValueError: If a field has no valid value, or two contradict each other.
    """

    objective: str = field(
        default="masked_lm",
        metadata={"help": "'masked_lm': masked language modelling; 'embedding': distil a sentence encoder."},
    )
    tokenizer: str | None = field(
        default=None,
        metadata={"help": "Tokenizer: a folder or a Hub id; by default the checkpoint's, or one trained on them."},
    )
    vocab_size: int = field(default=8192, metadata={"help": "Tokens of a tokenizer that is trained on the texts."})
    base_model_path: str | None = field(
        default=None,
        metadata={"help": "BERT or ModernBERT to start from (also Ettin, RexBERT, a nested one); its shape is read."},
    )
    target_model_path: str | None = field(
        default=None, metadata={"help": "Masked language model to distil from, of the same vocabulary."}
    )
    init_delta_from_target: bool = field(
        default=False,
        metadata={
            "help": "Start as base_model_path, grown to the shape of target_model_path, with what the target has "
            "beyond it behind closed gates."
        },
    )
    architecture: str = field(
        default="modernbert", metadata={"help": "Architecture of a model from scratch: 'modernbert' or 'bert'."}
    )
    hidden_size: int | None = field(default=None, metadata={"help": "Hidden size; 256 from scratch."})
    num_hidden_layers: int | None = field(default=None, metadata={"help": "Layers; 6 from scratch."})
    num_attention_heads: int | None = field(
        default=None, metadata={"help": "Attention heads; from scratch a head for 64 of the hidden size."}
    )
    intermediate_size: int | None = field(
        default=None,
        metadata={"help": "Feed-forward width; from scratch 1.5 (modernbert) or 4 (bert) times the hidden size."},
    )
    initializer_range: float | None = field(
        default=None,
        metadata={"help": "Spread of random weights; by default 0.02 * (768 / hidden_size)**0.5."},
    )
    base_ratio: float | None = field(
        default=None,
        metadata={
            "help": "Share of the feed-forward width that the smallest budget has; with half of the layers, and one "
            "budget half way to the full one."
        },
    )
    base_heads: int | None = field(
        default=None, metadata={"help": "Heads that the smallest budget has (with base_ratio, which is 0.5 then)."}
    )
    budget_norms: bool | None = field(
        default=None, metadata={"help": "Give each budget its own gain and shift in every norm; no by default."}
    )
    token_routing: bool | None = field(
        default=None,
        metadata={"help": "Give each layer what it needs to route tokens; by default as enable_token_delta says."},
    )
    rewire: bool | None = field(
        default=None,
        metadata={
            "help": "Sort neurons and heads by importance first; by default that of a checkpoint not nested yet."
        },
    )
    mlm_probability: float = field(default=0.3, metadata={"help": "Share of the tokens to predict."})
    level_maskings: bool = field(
        default=False, metadata={"help": "Mask each row anew for every budget, so that a step learns more of it."}
    )
    attn_implementation: str = field(
        default="sdpa",
        metadata={"help": "Attention: 'sdpa', 'packed_sdpa' (long rows on a CPU), 'eager', 'flash_attention_2', …"},
    )

    def __post_init__(self):
        super().__post_init__()
        for name, choices in (("objective", OBJECTIVES), ("architecture", ARCHITECTURES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r} does not exist; choose one of {', '.join(choices)}")
        self.check_corpus()
        if self.budgets is not None and (self.base_ratio is not None or self.base_heads is not None):
            raise ValueError("give budgets, or base_ratio and base_heads to build some, not both")
        if self.base_ratio is not None and not 0 < self.base_ratio <= 1:
            raise ValueError(f"base_ratio must be above 0 and up to 1, but is {self.base_ratio}")
        for name in ("base_heads", *SHAPES):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        if not 0 < self.mlm_probability < 1:
            raise ValueError(f"mlm_probability must be between 0 and 1, but is {self.mlm_probability}")
        if self.init_delta_from_target:
            if self.base_model_path is None or self.target_model_path is None:
                raise ValueError("init_delta_from_target needs base_model_path and target_model_path")
            fixed = ("rewire", "order_layers", "layer_order", "residual", *SHAPES)
            given = [name for name in fixed if getattr(self, name)]
            if given:
                raise ValueError(
                    f"init_delta_from_target starts every budget as the checkpoint of base_model_path, in the shape "
                    f"of the target; leave {given[0]} out"
                )
        changes = ("init_delta_from_target", "rewire", "order_layers", "budget_norms", "token_routing")
        self.check_dds(self.base_model_path, {name: bool(getattr(self, name)) for name in changes})
        for name in ("rewire", "order_layers"):
            if getattr(self, name) and self.base_model_path is None:
                raise ValueError(f"{name} measures the weights of a checkpoint, so it needs base_model_path")
