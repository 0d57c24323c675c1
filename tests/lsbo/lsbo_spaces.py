"""A small latent to search, and what is looked for in it."""

import numpy as np

from hf_matryoshka.lsbo.acquisition import AcquisitionOptions
from hf_matryoshka.lsbo.search_space import SearchSpace
from hf_matryoshka.surgery.funnel_init import init_funnel


SIZES = {"encoder_sizes": [4], "predictor_sizes": [4], "decoder_sizes": [4]}
# As little work as shows what is done.
QUICK = AcquisitionOptions(num_restarts=2, raw_samples=32, maxiter=20, mc_samples=32)


def make_space(dims=(2, 4), width=8, **options):
    """Principal components of random vectors on a flat space: the embedding of a point is linear in it."""
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(500, width)) * np.linspace(2, 0.5, width)).astype(np.float32)
    return SearchSpace(init_funnel(rows, matryoshka_dims=list(dims), geometry="euclidean", **SIZES), **options)


def bowl(space, at):
    """The squared distance of an embedding to that of the coordinates `at`."""
    target = space.decode(np.array([at], dtype=np.float64))[0]
    return lambda embedding: float(((embedding - target) ** 2).sum())
