"""The options of adaptor training that are not those of a trainer."""

import math
from dataclasses import dataclass, field


OBJECTIVES = {
    # Rank-preserving distillation with labels mixed into its targets; full-width cosines are kept.
    "rank": {"unsupervised": {}, "supervised": {}},
    # Matryoshka-Adaptor, arXiv 2407.20243, Eq. 4 and 6.
    "paper": {
        "unsupervised": {
            "rank_distillation_weight": 0.0,
            "topk_weight": 1.0,
            "pairwise_weight": 1.0,
            "reconstruction_weight": 1.0,
            "anchor_weight": 0.0,
        },
        "supervised": {
            "rank_distillation_weight": 0.0,
            "topk_weight": 1.0,
            "pairwise_weight": 1.0,
            "reconstruction_weight": 1.0,
            "ranking_weight": 1.0,
            "anchor_weight": 0.0,
        },
    },
}


@dataclass
class AdaptorRecipe:
    """What [`train_adaptor`] does; every field is also a flag of `hf-matryoshka train adaptor` and a YAML key.

    Raises:
        ValueError: If a field has no valid value.
    """

    kind: str = field(
        default="mlp", metadata={"help": "Architecture: 'mlp', 'linear', 'orthogonal' or 'permutation'."}
    )
    init: str = field(
        default="svd", metadata={"help": "Start from the 'svd' of the corpus (uncentred) or from the 'identity'."}
    )
    matryoshka_dims: list[int] | None = field(
        default=None, metadata={"help": "Trained widths; log-spaced from 16 to the full width by default."}
    )
    intermediate_size: int | None = field(default=1024, metadata={"help": "Hidden width of kind 'mlp'."})
    num_reflections: int = field(default=64, metadata={"help": "Householder reflections of kind 'orthogonal'."})
    objective: str = field(
        default="rank",
        metadata={"help": "'rank': rank-preserving distillation; 'paper': the losses of arXiv 2407.20243."},
    )
    supervised: bool = field(
        default=True, metadata={"help": "Run the supervised stage when there are labelled training queries."}
    )
    unsupervised_steps: int = field(default=800, metadata={"help": "Optimizer steps of the unsupervised stage."})
    supervised_steps: int = field(default=300, metadata={"help": "Optimizer steps of the supervised stage."})
    document_share: float = field(
        default=1.0, metadata={"help": "Documents among the anchors, relative to the other two shares."}
    )
    title_share: float = field(default=1.0, metadata={"help": "Titles among the anchors, relatively."})
    sentence_share: float = field(default=4.0, metadata={"help": "Sentences among the anchors, relatively."})
    query_share: float = field(
        default=0.25, metadata={"help": "Share of labelled queries among the anchors of the supervised stage."}
    )
    pseudo_label_weight: float = field(
        default=0.3,
        metadata={"help": "Part of a pseudo-query's target that is the document it comes from (0 to 1)."},
    )
    label_weight: float = field(
        default=0.7, metadata={"help": "Part of a labelled query's target that is its relevant documents (0 to 1)."}
    )
    num_neighbours: int = field(default=32, metadata={"help": "Nearest documents mined for each anchor."})
    neighbours_per_anchor: int = field(
        default=4, metadata={"help": "How many of them each anchor adds to the candidates of its batch."}
    )
    random_candidates: int = field(default=512, metadata={"help": "Random documents among the candidates."})
    validation_fraction: float = field(
        default=0.1,
        metadata={
            "help": "Part of the documents (and of the labelled queries) held out to pick the best step; 0: none."
        },
    )
    tolerance: float = field(
        default=0.005,
        metadata={"help": "What the supervised stage may cost the held-out documents, in the mean of their metric."},
    )
    refit: bool = field(
        default=True,
        metadata={"help": "Train once more on everything, for the as far as was best for the held-out part."},
    )
    evaluations: int = field(default=8, metadata={"help": "Validations in a stage."})
    patience: int = field(default=3, metadata={"help": "Validations without a gain before a stage stops."})
    seed: int = field(default=0, metadata={"help": "Seed of everything random."})

    @classmethod
    def quick(cls, **options) -> "AdaptorRecipe":
        """The recipe of the quickstart: half the steps, and no second run on everything."""
        return cls(**{"unsupervised_steps": 300, "supervised_steps": 300, "refit": False, **options})

    def __post_init__(self):
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective {self.objective!r} does not exist; choose one of {', '.join(OBJECTIVES)}")
        if self.objective == "paper" and self.init != "identity":
            raise ValueError("objective 'paper' reconstructs the embedding, so it needs init 'identity'")
        for name in ("unsupervised_steps", "supervised_steps", "evaluations", "patience", "num_neighbours"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but is {getattr(self, name)}")
        for name in ("label_weight", "pseudo_label_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, but is {getattr(self, name)}")
        for name in ("document_share", "title_share", "sentence_share", "query_share"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number from 0 on, but is {getattr(self, name)}")
        if not math.isfinite(self.tolerance):
            raise ValueError(f"tolerance must be finite, but is {self.tolerance}")
        if not 0 <= self.validation_fraction < 0.9:
            raise ValueError(f"validation_fraction must be in [0, 0.9), but is {self.validation_fraction}")
