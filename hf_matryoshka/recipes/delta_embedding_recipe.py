"""The options of distilling a nested sentence encoder that are not those of a trainer."""

from dataclasses import dataclass, field

from .budget_options import BudgetOptions
from .text_options import TextOptions


@dataclass
class DeltaEmbeddingRecipe(TextOptions, BudgetOptions):
    """What [`train_delta_embedding`] does; every field is also a flag of `hf-matryoshka train delta` and a YAML key.

    Raises:
        ValueError: If a field has no valid value, or two contradict each other.
    """

    objective: str = field(default="embedding", metadata={"help": "'embedding': distil a sentence encoder."})
    base_model_path: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={"help": "Sentence-embedding model to start from, a folder or a Hub id; it is the teacher, too."},
    )
    matryoshka_dims: list[int] | None = field(
        default=None, metadata={"help": "Output widths to train beside the full one, smallest first."}
    )
    rewire: bool = field(default=True, metadata={"help": "Sort neurons and heads by importance first."})

    def __post_init__(self):
        super().__post_init__()
        if self.objective != "embedding":
            raise ValueError(f"objective {self.objective!r} is not 'embedding'; masked_lm has other options")
        self.check_texts()
