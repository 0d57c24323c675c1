"""The same nested encoder with other budgets."""

import math
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from ..modeling.nested_layers import NestedLayerNorm


@torch.no_grad()
def with_budgets(model: PreTrainedModel, budgets: Sequence[Sequence]) -> PreTrainedModel:
    """A model with the same weights whose levels are other budgets, such as sizes between those that were trained.

    A slice of trained weights between two trained slices is most often a good model, too (MatFormer, arXiv 2310.07707,
    section 3.3). Where the norms have gains of their own for each budget, a new budget has those of its neighbours in
    cost, mixed in proportion to the logarithm of the multiplications, and beyond the ends those of the nearest one.

    Args:
        model (`PreTrainedModel`): A Delta encoder; it is left alone.
        budgets (`Sequence[Sequence]`): The budgets, `[width, heads, depth]` each, smallest first, the full size last.

    Returns:
        `PreTrainedModel`: A new model of the same class, in the same mode.

    Raises:
        ValueError: If the model has no budgets, one of `budgets` is not inside the full size, or the smallest is
            another in a model with gates.
    """
    old = model.config
    if not hasattr(old, "budgets"):
        raise ValueError(f"{type(model).__name__} has no budgets; give a Delta encoder")
    if old.delta_gates and list(budgets[0]) != list(old.budgets[0]):
        raise ValueError(
            f"the gates of the model are for what is beyond its smallest budget {old.levels[0]}; keep that one first"
        )
    config = type(old).from_dict({**old.to_dict(), "budgets": [list(entry) for entry in budgets]})
    config._attn_implementation = old._attn_implementation
    new = model._new(config).to(model.device, model.dtype)
    state = model.state_dict()
    if old.budget_norms:
        costs = [math.log(model.cost(level)["macs"]) for level in old.levels]
        rows = [_mixture(math.log(new.cost(level)["macs"]), level, costs, old.levels) for level in config.levels]
        mixture = torch.tensor(rows, device=model.device)
        for path, module in model.named_modules():
            if isinstance(module, NestedLayerNorm):
                for name, table in module.named_parameters(prefix=path, recurse=False):
                    if name.endswith((".level_weight", ".level_bias")):
                        state[name] = (mixture @ table.float()).to(table.dtype)
    new.load_state_dict(state)
    return new.train(model.training)


def _mixture(cost: float, level: str, costs: list[float], levels: Sequence[str]) -> list[float]:
    """The share of each old level in a new one."""
    if level in levels:
        return [float(level == other) for other in levels]
    order = sorted(range(len(costs)), key=costs.__getitem__)
    below = [index for index in order if costs[index] <= cost]
    above = [index for index in order if costs[index] > cost]
    shares = [0.0] * len(costs)
    if not below or not above:
        shares[below[-1] if below else above[0]] = 1.0
        return shares
    low, high = below[-1], above[0]
    shares[high] = (cost - costs[low]) / (costs[high] - costs[low])
    shares[low] = 1 - shares[high]
    return shares
