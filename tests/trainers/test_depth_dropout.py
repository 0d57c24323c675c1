import pytest

from hf_matryoshka.trainers.depth_dropout import (
    depth_dropout_rate,
    depth_weights,
    draw_layers,
    survival_probability,
)


def test_the_rate_is_annealed():
    assert [depth_dropout_rate(progress, 0.5, 0.1) for progress in (0.0, 0.5, 1.0, 1.5)] == pytest.approx(
        [0.5, 0.3, 0.1, 0.1]
    )


def test_the_smallest_depth_has_half_of_the_draws():
    assert depth_weights([12, 3, 9, 6, 6, 12], 12) == {3: 0.5, 6: 0.25, 9: 0.25}
    assert depth_weights([3, 12], 12) == {3: 1.0}
    assert depth_weights([12, 12], 12) == {}


def test_survival_falls_with_depth_and_time():
    assert survival_probability(0, 12, 1.0, 0.2) == 1
    assert survival_probability(11, 12, 0.0, 0.2) == 1
    assert survival_probability(11, 12, 1.0, 0.2) == pytest.approx(0.8)
    # LayerSkip's curves: 2^x - 1 over the layers and over the time.
    assert survival_probability(5, 11, 0.5, 0.2) == pytest.approx(1 - 0.2 * (2**0.5 - 1) ** 2)
    assert survival_probability(0, 1, 1.0, 1.0) == 1


def test_draws_have_the_shares_that_were_asked_for():
    def draws(progress, **settings):
        return [draw_layers(0, step, progress, range(12), [3, 6, 9, 12], **settings) for step in range(4000)]

    early = draws(0.0)
    short = [layers for layers in early if layers is not None]
    assert len(short) / len(early) == pytest.approx(0.5, abs=0.03)
    # Nothing is skipped yet.
    assert set(short) == {tuple(range(depth)) for depth in (3, 6, 9)}
    assert sum(len(layers) == 3 for layers in short) / len(short) == pytest.approx(0.5, abs=0.04)
    late = draws(1.0, end=0.4, drop_path=1.0)
    short = [layers for layers in late if layers is not None]
    assert len(short) / len(late) == pytest.approx(0.4, abs=0.03)
    assert all(layers[0] == 0 and list(layers) == sorted(layers) for layers in short)
    # Layers 0 to 2 belong to every depth.
    for layer in (1, 2):
        share = sum(layer in layers for layers in short) / len(short)
        assert share == pytest.approx(survival_probability(layer, 12, 1.0, 1.0), abs=0.03)
    assert draws(0.0, start=0.0) == [None] * 4000


def test_a_draw_depends_on_seed_and_step_alone():
    settings = {"progress": 0.5, "order": range(12), "depths": [3, 6, 12], "drop_path": 0.9}
    first = [draw_layers(1, step, **settings) for step in range(50)]
    assert [draw_layers(1, step, **settings) for step in reversed(range(50))][::-1] == first
    assert [draw_layers(2, step, **settings) for step in range(50)] != first
    assert all(draw_layers(1, step, 0.0, range(12), [12, 12], start=1.0) is None for step in range(5))


def test_a_shortened_step_runs_the_layers_of_a_level():
    order = [0, 11, 5, 8, 3, 1, 2, 4, 6, 7, 9, 10]
    found = {draw_layers(0, step, 0.0, order, [2, 4, 12], start=1.0) for step in range(50)}
    assert found == {(0, 11), (0, 5, 8, 11)}
