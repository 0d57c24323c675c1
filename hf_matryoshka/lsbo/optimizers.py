"""All optimisers by name."""

import inspect
from pathlib import Path
from typing import Any

from .baselines import CorpusPool, RandomSearch
from .cmaes import CMAES
from .optimizer import Optimizer
from .search_space import SearchSpace
from .staged_lsbo import StagedLSBO
from .turbo import Turbo


# Each with what its name fixes.
_KINDS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "staged": (StagedLSBO, {}),
    # BoTorch's default model in all coordinates at once.
    "gp": (StagedLSBO, {"mode": "full", "surrogate": "rbf"}),
    "linear": (StagedLSBO, {"mode": "full", "surrogate": "linear"}),
    "turbo": (Turbo, {}),
    "cmaes": (CMAES, {}),
    "random": (RandomSearch, {}),
    "pool": (CorpusPool, {}),
}
OPTIMIZERS = tuple(_KINDS)


def make_optimizer(
    name: str,
    space: SearchSpace,
    *,
    maximize: bool,
    trials: int = 225,
    seed: int = 0,
    folder: str | Path | None = None,
    **options: Any,
) -> Optimizer:
    """An optimiser.

    Args:
        name (`str`): `"staged"` ([`StagedLSBO`]), `"gp"` or `"linear"` (a Gaussian process in the full latent, with
            BoTorch's default or a linear kernel), `"turbo"` ([`Turbo`]), `"cmaes"` ([`CMAES`]), `"random"`
            ([`RandomSearch`]) or `"pool"` ([`CorpusPool`]).
        space ([`SearchSpace`]), maximize (`bool`), trials (`int`), seed (`int`), folder (`str` or `Path`): As those of
            [`Optimizer`].
        options: Further arguments of this optimiser.

    Raises:
        ValueError: If there is no such optimiser, it has no such option, or as the optimiser itself.
    """
    if name not in _KINDS:
        raise ValueError(f"optimizer {name!r} does not exist; choose one of {', '.join(OPTIMIZERS)}")
    kind, fixed = _KINDS[name]
    known = inspect.signature(kind).parameters
    for option in options:
        if option not in known or option in fixed:
            raise ValueError(f"the optimizer {name!r} has no option {option}")
    if name == "pool" and "pool" not in options:
        raise ValueError("the optimizer 'pool' needs a corpus whose embeddings it can try")
    return kind(space, maximize=maximize, trials=trials, seed=seed, folder=folder, **fixed, **options)
