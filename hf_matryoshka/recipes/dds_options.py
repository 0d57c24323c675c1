"""The options of training an upgrade pack (delta dictionary sharing) instead of the weights of a model."""

from dataclasses import dataclass, field


@dataclass
class DdsOptions:
    """Whether the checkpoint stays as it is, and how large its upgrade pack is.

    Raises:
        ValueError: If a number is too small, or options are given without `enable_dds`.
    """

    enable_dds: bool = field(
        default=False,
        metadata={
            "help": "Leave the checkpoint as it is and train an upgrade pack of a few KB for it (delta dictionary "
            "sharing)."
        },
    )
    dds_num_atoms: int | None = field(
        default=None, metadata={"help": "Atoms that the layers share, and coefficients of each weight; 16."}
    )
    dds_rank: int | None = field(default=None, metadata={"help": "Rank of an atom; 64."})
    dds_private_rank: int | None = field(
        default=None, metadata={"help": "Rank of a remainder that each weight has in the pack for itself; 0: none."}
    )
    dds_bank: str | None = field(
        default=None,
        metadata={
            "help": "File of the atoms (save_bank, or dds_bank.safetensors of another run); by default the principal "
            "matrices of what target_model_path changed if it has the same shape, otherwise random ones."
        },
    )

    def check_dds(self, base: str | None, others: dict[str, bool]) -> None:
        """Raise `ValueError` if the options contradict each other, `base` is no checkpoint, or one of `others` is
        on."""
        sizes = {"dds_num_atoms": 1, "dds_rank": 1, "dds_private_rank": 0}
        for name in (*sizes, "dds_bank"):
            value = getattr(self, name)
            if value is not None and not self.enable_dds:
                raise ValueError(f"{name} goes with enable_dds, which is off")
            if value is not None and name in sizes and value < sizes[name]:
                raise ValueError(f"{name} must be at least {sizes[name]}, but is {value}")
        if self.enable_dds and base is None:
            raise ValueError("enable_dds trains an upgrade of a checkpoint, so it needs base_model_path")
        for name, on in others.items():
            if self.enable_dds and on:
                raise ValueError(f"enable_dds keeps the checkpoint as it is, but {name} would change it; leave it out")
