import json

import pytest
import torch

from hf_matryoshka.modeling import MatryoshkaMambaModel
from hf_matryoshka.modeling.dimension_frontier import FRONTIER_FILE, Frontier, FrontierPoint, InfeasibleConstraint

from .mamba_models import make


def scores(mean, noise=0.0, count=400):
    draws = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = torch.rand(count, generator=torch.Generator().manual_seed(int(1000 * mean)), dtype=torch.float64)
    values = draws + noise * (own - own.mean())
    return (values * mean / values.mean()).tolist()


@pytest.fixture
def frontier():
    """The half width keeps 90 and 95%, the full one 94, 98 and 100%."""
    points = [
        FrontierPoint("w0.5", 16, scores(0.45, 0.1), {16: 1.0, 64: 2.0}),
        FrontierPoint("w0.5", 48, scores(0.475, 0.1), {16: 1.1, 64: 2.2}),
        FrontierPoint("w1.0", 8, scores(0.47, 0.1), {16: 2.0, 64: 4.0}),
        FrontierPoint("w1.0", 16, scores(0.49, 0.1), {16: 2.1, 64: 4.2}),
        FrontierPoint("w1.0", 48, scores(0.5), {16: 2.2, 64: 4.4}),
    ]
    return Frontier(points, "ndcg_at_10", "a test", "x86")


def test_the_smallest_dimension_that_keeps_enough_is_chosen(frontier):
    def chosen(*demands, **options):
        point = frontier.select(*demands, **options)
        return point.level, point.dim

    assert chosen(0.9) == ("w1.0", 8)
    assert chosen(0.95) == ("w1.0", 16)
    assert chosen(1.0) == ("w1.0", 48)
    # The mean is enough, the lower bound is not.
    assert frontier.retained()[3] == pytest.approx(0.98)
    assert chosen(0.978) == ("w1.0", 48) and chosen(0.978, confidence=0.5) == ("w1.0", 16)
    # A limit on time leaves the half width; by its length a text is faster or slower.
    assert chosen(0.85, 1.5, seq_len=16) == ("w0.5", 16)
    assert chosen(0.85, 2.0, seq_len=16) == ("w1.0", 8)
    assert chosen(0.93, 1.5, seq_len=16) == ("w0.5", 48)
    # Of one dimension the faster level.
    assert chosen(0.85, 3.0, seq_len=64) == ("w0.5", 16)
    assert chosen(0.5, max_memory_mb=0.1, num_docs=3000) == ("w1.0", 8)


def test_a_dimension_counts_only_if_the_larger_ones_do(frontier):
    points = list(frontier.points)
    points[3] = FrontierPoint("w1.0", 16, scores(0.3), {16: 2.1})
    dented = Frontier(points, "ndcg_at_10", "a test", "x86")
    assert dented.assured(0.95)[2] == dented.assured(0.95)[3] == pytest.approx(0.6, abs=0.01)
    assert dented.select(0.9).level == "w0.5"


def test_a_promise_is_rarely_broken():
    """Of all queries the smallest dimension keeps 93%: asked for a little more, choosing it is an error."""
    generator, chosen = torch.Generator().manual_seed(0), []
    for _ in range(200):
        full, *noise = torch.rand(3, 150, generator=generator, dtype=torch.float64)
        shares = [mean + 0.5 * (part - 0.5) for mean, part in zip((0.93, 0.97), noise, strict=True)]
        parts = zip((8, 16, 48), (shares[0] * full, shares[1] * full, full), strict=True)
        points = [FrontierPoint("w1.0", dim, part.tolist(), {16: 1.0}) for dim, part in parts]
        chosen.append(Frontier(points, "m", "s", "x").select(0.931).dim)
    assert chosen.count(8) <= 0.08 * len(chosen) and chosen.count(16) > 0.8 * len(chosen)


def test_what_cannot_be_met_says_which_change_would_do(frontier):
    with pytest.raises(InfeasibleConstraint) as error:
        frontier.select(0.95, 1.5, seq_len=16)
    relaxations = error.value.relaxations
    assert str(error.value).startswith("no dimension meets min_accuracy=0.95, max_latency_ms=1.5 at 16 tokens")
    assert set(relaxations) == {"min_accuracy", "max_latency_ms"}
    assert relaxations["max_latency_ms"] == 2.1
    assert frontier.select(relaxations["min_accuracy"], 1.5, seq_len=16).level == "w0.5"
    assert frontier.select(0.95, relaxations["max_latency_ms"], seq_len=16).dim == 16
    with pytest.raises(InfeasibleConstraint, match="no single demand is to blame"):
        frontier.select(0.99, 0.5, 1e-9)
    for demands, message in (
        ((0,), "min_accuracy is a share of the full quality"),
        ((0.9, -1), "max_latency_ms must be positive, but is -1"),
        ((0.9, 1, 0), "max_memory_mb must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            frontier.select(*demands)
    with pytest.raises(ValueError, match="confidence must be in"):
        frontier.select(0.9, confidence=1.0)


def test_latency_between_and_beyond_the_measured_lengths(frontier):
    point = frontier.points[0]
    assert [point.latency(length) for length in (1, 16, 40, 64, 640)] == pytest.approx([1, 1, 1.5, 2, 20])
    assert point.memory_mb(1_000_000) == 64


def test_trade_offs_are_a_table(frontier):
    rows = frontier.trade_offs(num_docs=1000, seq_len=16)
    assert [(row["level"], row["dim"]) for row in rows][0] == ("w0.5", 16) and len(rows) == 5
    assert rows[-1]["retained"] == rows[-1]["assured"] == 1
    assert rows[0]["assured"] < rows[0]["retained"] and rows[0]["memory_mb"] == 0.064


def test_the_frontier_is_saved_with_the_model(frontier, tmp_path):
    model = make()
    with pytest.raises(ValueError, match="nothing was measured for this model yet"):
        model.select_optimal_dimension(0.9)
    model.frontier = frontier
    model.save_pretrained(tmp_path / "model")
    loaded = MatryoshkaMambaModel.from_pretrained(tmp_path / "model")
    assert loaded.frontier == frontier and loaded.select_optimal_dimension(0.95).dim == 16
    assert loaded.trade_offs() == frontier.trade_offs()
    # A level by itself is another model, and so are new weights.
    assert MatryoshkaMambaModel.from_pretrained(tmp_path / "model", level="w0.5").frontier is None
    make().save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / FRONTIER_FILE).exists()
    with pytest.raises(
        ValueError, match="the frontier has the level w0.5 with 16 dimensions, which this model has not"
    ):
        make(widths=[0.25, 1.0]).frontier = frontier


def test_files_that_are_no_frontier_are_named(frontier, tmp_path):
    path = tmp_path / "frontier.json"
    with pytest.raises(FileNotFoundError, match="give a file that Frontier.save wrote"):
        Frontier.load(path)
    frontier.save(path)
    content = json.loads(path.read_text())
    for changes in ({"format_version": 2}, {"points": []}, {"other": 1}):
        path.write_text(json.dumps({**content, **changes}))
        with pytest.raises(ValueError, match="is no file that this version of Frontier.save wrote"):
            Frontier.load(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is no file that"):
        Frontier.load(path)
