"""How the weights around a residual stream become those around a wider one that carries the same."""

import math
from typing import Literal

import torch
from torch import nn


class WiderStream:
    r"""A residual stream inside a wider one, and how each kind of weight is written so that it stays there.

    The leading channels of the wide stream are the narrow one. The others are, where the width is a multiple, copies
    of it; else each is the mean of the narrow one, and every norm finds the mean it had and \\( m/n \\) times the
    variance, so that gains times \\( \sqrt{m/n} \\) and an epsilon times \\( m/n \\) undo the change. That is the
    average expansion of LEMON (Wang et al., arXiv 2310.07999); no other linear map of the narrow stream to the extra
    channels keeps a norm up to a factor when \\( n < 2m \\).

    What is new is random where nothing depends on it, as the new model has it already: so the methods only write what
    has to be as it is.

    Args:
        narrow, wide (`int`): The widths \\( m \\) and \\( n \\).
        tolerance (`float`): Largest relative change that a norm may see where extra channels must carry a number, see
            [`carrier_gain`].
    """

    def __init__(self, narrow: int, wide: int, tolerance: float):
        self.narrow, self.wide, self.tolerance = narrow, wide, tolerance
        self.extra = wide - narrow
        self.copies = 0 if wide % narrow else wide // narrow
        self.shrink = 1.0 if self.copies else math.sqrt(narrow / wide)
        # One sign for each extra channel, half of them negative.
        self.signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(self.extra // 2)
        self.written: set[int] = set()

    def put(self, parameter: nn.Parameter, values: torch.Tensor) -> None:
        parameter.copy_(values)
        self.written.add(id(parameter))

    def spread(self, values: torch.Tensor, tilt: torch.Tensor | None = None) -> torch.Tensor:
        """Rows of the wide stream from those of the narrow one.

        Args:
            values (`torch.Tensor` of shape `(narrow, ...)`): Rows.
            tilt (`torch.Tensor` of shape `(narrow,)`, *optional*): The extra channels are the mean plus and, in turn,
                minus the product with this.
        """
        values = values.double()
        if self.copies:
            return torch.cat([values] * self.copies)
        extra = values.mean(0, keepdim=True).expand(self.extra, *values.shape[1:])
        if tilt is not None:
            extra = extra + torch.tensordot(self.signs.to(values.device).outer(tilt), values, 1)
        return torch.cat((values, extra))

    def read(
        self, new: nn.Linear, old: nn.Linear, blocks: int = 1, first: int = 0, extra: Literal["zero", "equal"] = "zero"
    ) -> None:
        """A projection from the stream, into which further units may have come.

        Args:
            new, old (`nn.Linear`): The projections.
            blocks (`int`, *optional*, defaults to 1): Projections that lie one below the other in each.
            first (`int`, *optional*, defaults to 0): The row at which the old units start.
            extra (`str`, *optional*, defaults to `"zero"`): What the projection finds in the extra channels if they
                are no copies: `"zero"`, or one number that all of them have.
        """
        weight, rows = new.weight.double().unflatten(0, (blocks, -1)), old.out_features // blocks
        part = slice(first, first + rows)
        narrow = old.weight.double().unflatten(0, (blocks, -1))
        if self.copies:
            shares = weight[:, part].unflatten(-1, (self.copies, self.narrow))
            # Unequal shares of each weight, so that the copies of a channel learn different things.
            weight[:, part] = (shares - shares.mean(-2, keepdim=True) + narrow.unsqueeze(-2) / self.copies).flatten(-2)
        else:
            weight[:, part, : self.narrow] = narrow
            if extra == "equal":
                weight[..., self.narrow :] -= weight[..., self.narrow :].mean(-1, keepdim=True)
        self.put(new.weight, weight.flatten(0, 1))
        if old.bias is not None:
            bias = new.bias.double().unflatten(0, (blocks, -1))
            bias[:, part] = old.bias.double().unflatten(0, (blocks, -1))
            self.put(new.bias, bias.flatten())

    def write(self, new: nn.Linear, old: nn.Linear, first: int = 0, tilt: torch.Tensor | None = None) -> None:
        """A projection to the stream; further units write nothing yet, so that they change nothing."""
        weight = torch.zeros_like(new.weight, dtype=torch.float64)
        weight[:, first : first + old.in_features] = self.spread(old.weight, tilt)
        self.put(new.weight, weight)
        if old.bias is not None:
            self.put(new.bias, self.spread(old.bias, tilt))

    def silence(self, new: nn.Linear) -> None:
        """A projection to the stream that writes nothing yet."""
        for parameter in new.parameters():
            self.put(parameter, torch.zeros_like(parameter))

    def norm(self, new: nn.LayerNorm, old: nn.LayerNorm, closed: bool = False) -> None:
        """A norm of the stream. Extra channels that are no copies are 0 after it, whatever their gain is.

        Args:
            closed (`bool`, *optional*, defaults to `False`): Whether that gain is 0, not the mean of the others, so
                that not even what is lost in rounding passes.
        """
        gain = old.weight.double()
        extra = (0 * gain if closed else gain).mean().expand(self.extra)
        tail = gain.repeat(self.copies - 1) if self.copies else extra
        self.put(new.weight, self.shrink * torch.cat((gain, tail)))
        if old.bias is not None:
            bias = old.bias.double()
            tail = bias.repeat(self.copies - 1) if self.copies else bias.new_zeros(self.extra)
            self.put(new.bias, torch.cat((bias, tail)))

    def carrier_gain(self, old: nn.LayerNorm, peak: float) -> float:
        r"""Gain of the extra channels of a norm after which they must be the mean of the leading ones.

        That mean is no function of the mean before the norm, so the extra channels carry it: in turn plus and minus
        \\( 1/G \\) of it before the norm, which disturbs the variance by \\( O(1/G^2) \\), and gains of
        \\( \pm G \\). The smallest gain within the tolerance is the best one: what training does to these channels is
        multiplied by it, too.

        Args:
            old (`nn.LayerNorm`): The norm of the narrow stream.
            peak (`float`): Largest number to carry, in units of the norm's output.
        """
        relative = math.sqrt(self.extra / (2 * self.narrow * self.tolerance)) * peak
        return self.shrink * max(relative, old.weight.double().abs().mean().item())

    def carry(self, new: nn.LayerNorm, old: nn.LayerNorm, gain: float, offset: float = 0.0) -> None:
        """A norm after which the extra channels are the mean of the leading ones, see [`carrier_gain`]."""
        weight = self.shrink * old.weight.double()
        self.put(new.weight, torch.cat((weight, gain * self.signs.to(weight.device))))
        if old.bias is not None:
            bias = old.bias.double()
            self.put(new.bias, torch.cat((bias, (bias.mean() + offset).expand(self.extra))))

    def head(self, dense: tuple[nn.Linear, nn.Linear], norm: tuple[nn.LayerNorm, nn.LayerNorm], shared: bool) -> None:
        r"""A prediction head: a dense layer, an activation and a norm, each as a pair of the new and the old one.

        The norm comes after the activation, so its statistics are no linear function of the stream: for all texts they
        stay only if every unit is there equally often, at a multiple of the width. At other widths some units are
        there once more, at even distances: their mean and variance are about those of all, the better the more there
        are (\\( O(1/\sqrt{m}) \\)).

        Args:
            shared (`bool`): Whether the decoder is the embedding table, which has each channel several times.
        """
        (new_dense, old_dense), (new_norm, old_norm) = dense, norm
        rest = self.wide % self.narrow
        units = torch.arange(self.wide) % self.narrow
        units[self.wide - rest :] = torch.arange(rest) * self.narrow // max(rest, 1)
        repeated = nn.Linear(self.narrow, self.wide, bias=old_dense.bias is not None).to(old_dense.weight)
        for new, old in zip(repeated.parameters(), old_dense.parameters(), strict=True):
            new.copy_(old[units])
        self.read(new_dense, repeated, extra="equal")
        times = self.copies if self.copies and shared else 1
        for new, old in ((new_norm.weight, old_norm.weight), (new_norm.bias, old_norm.bias)):
            if old is not None:
                tail = old.repeat(self.copies - 1) if self.copies else old.new_zeros(self.extra)
                self.put(new, torch.cat((old, tail)) / times)
