import torch

from hf_matryoshka.lsbo.acquisition import AcquisitionOptions, Observations, expected_improvement, propose
from hf_matryoshka.lsbo.surrogates import fit_surrogate


def test_a_box_that_leaves_out_the_best_points_is_searched():
    """From 20 dimensions on BoTorch changes some coordinates of them only; the others stayed outside, an error."""
    points = torch.rand(16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    known = Observations(points, points.sum(dim=-1))
    options = AcquisitionOptions(num_restarts=2, raw_samples=32, maxiter=5, mc_samples=16)
    improvement = expected_improvement(fit_surrogate(points, known.values), known, 0, options)
    centre = points[known.values.argmax()]
    box = torch.stack([(centre - 0.02).clamp(0, 1), (centre + 0.02).clamp(0, 1)])
    # Another of the best points is what it samples around.
    improvement.X_baseline = points[known.values.argsort()[:1]]
    found, _ = propose(improvement, box, {}, 2, 0, options)
    assert (found >= box[0]).all() and (found <= box[1]).all()
