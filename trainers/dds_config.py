"""Options of delta dictionary sharing (DDS), as a config of PEFT."""

from dataclasses import dataclass, field

from peft import PeftConfig
from peft.utils import PeftType


def _add_peft_type(name: str) -> None:
    """Enter a method of another package into PEFT's list of methods.

    `register_peft_method` refuses a name that is not in that list, and the list is an `Enum`, which has no public way
    to grow.
    """
    member = str.__new__(PeftType, name)
    member._name_ = member._value_ = name
    setattr(PeftType, name, member)
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = PeftType._value2member_map_[name] = member


_add_peft_type("DDS")


@dataclass
class DdsConfig(PeftConfig):
    """Options of [`DdsModel`], for `peft.get_peft_model`.

    Args:
        num_atoms (`int`, *optional*, defaults to 16):
            Atoms that all layers of one target share, and coefficients of each layer.
        rank (`int`, *optional*, defaults to 64):
            Rank of an atom, at most; it is cut to the smaller side of the weights of a target.
        private_rank (`int`, *optional*, defaults to 0):
            Rank of a remainder that each layer has for itself; cut as the rank is.
        target_modules (`list[str]` or `str`, *optional*):
            Names of the linear layers, their ends or a regular expression, as in LoRA; by default those of attention
            and feed-forward of BERT and ModernBERT, also as Delta models.
        exclude_modules (`list[str]` or `str`, *optional*):
            Which of these to leave out.
        train_bank (`bool`, *optional*, defaults to `False`):
            Whether the atoms are trained too. Such a bank belongs to one adapter and has to be shipped with it.
        bank_seed (`int`, *optional*, defaults to 0):
            What the random atoms are drawn from, if no others are loaded.
        modules_to_save (`list[str]`, *optional*):
            Further layers that are trained whole, such as a new classifier.
        layers_to_transform (`list[int]` or `int`, *optional*):
            Numbers of the layers to adapt; all by default.
        layers_pattern (`list[str]` or `str`, *optional*):
            Name of the list of layers that these numbers count, if PEFT does not know it.

    Raises:
        ValueError: If a number is too small.
    """

    num_atoms: int = field(default=16, metadata={"help": "Atoms that all layers of one target share."})
    rank: int = field(default=64, metadata={"help": "Rank of an atom, at most."})
    private_rank: int = field(default=0, metadata={"help": "Rank of each layer's own remainder; 0: none."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Linear layers to adapt."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Which of them to leave out."})
    train_bank: bool = field(default=False, metadata={"help": "Train the atoms, too."})
    bank_seed: int = field(default=0, metadata={"help": "Seed of random atoms."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Layers that are trained whole."})
    layers_to_transform: list[int] | int | None = field(default=None, metadata={"help": "Numbers of the layers."})
    layers_pattern: list[str] | str | None = field(default=None, metadata={"help": "Name of the list of layers."})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType.DDS
        for name, least in (("num_atoms", 1), ("rank", 1), ("private_rank", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, but is {getattr(self, name)}")
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))
