"""The options of training a FractalFormer that are not those of a trainer."""

from dataclasses import dataclass, field

from .gpt_recipe import NESTING, GPTRecipe


# As in the config, which is not loaded for a command line.
DEEPEST = 32


@dataclass
class FractalRecipe(GPTRecipe):
    """What [`~recipes.train_gpt.train_gpt`] does with streams; every field is also a flag of `hf-matryoshka train
    fractal` and a YAML key.

    Each file of `texts` is the stream of one of the smallest dolls, in their order.

    Raises:
        ValueError: If a field has no valid value, two contradict each other, or the files are not as many as dolls.
    """

    rows: str = field(
        default="windows", metadata={"help": "'windows': each file is one stream, its end held out; nothing else yet."}
    )
    children: int = field(default=2, metadata={"help": "Dolls inside each doll, 2 or more."})
    depth: int = field(default=3, metadata={"help": "How often, the whole included: children^(depth-1) files."})

    def __post_init__(self):
        super().__post_init__()
        if self.rows != "windows":
            raise ValueError(f"rows of a FractalFormer are 'windows', one file a smallest doll, but are {self.rows!r}")
        if self.children < 2 or not 0 < self.depth <= DEEPEST:
            raise ValueError(
                f"children must be at least 2 and depth from 1 to {DEEPEST}, but are {self.children} and {self.depth}"
            )
        if len(self.texts) != self.num_streams:
            raise ValueError(
                f"there are {len(self.texts)} files for {self.num_streams} smallest dolls ({self.children} children, "
                f"depth {self.depth}); give one file a doll"
            )
        fixed = [name for name in ("base_model_path", "hierarchy", "emergent_widths", *NESTING) if getattr(self, name)]
        if fixed:
            raise ValueError(f"{fixed[0]} has no meaning for a FractalFormer; leave it out")

    @property
    def num_streams(self) -> int:
        """The number of the smallest dolls."""
        return self.children ** (self.depth - 1)
