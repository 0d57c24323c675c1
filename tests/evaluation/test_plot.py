import sys

import pytest
from PIL import Image

from hf_matryoshka.evaluation.curve import Curve, LevelPoint
from hf_matryoshka.evaluation.plot import plot_curves


def _curve(system, shift, band=0.02, **kwargs):
    points = [
        LevelPoint(f"d{dim}", dim, quality + shift, quality + shift - band, quality + shift + band)
        for dim, quality in [(16, 0.3), (64, 0.5), (384, 0.6)]
    ]
    return Curve(points, "ndcg_at_10", "test", system, **kwargs)


def _pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size, image.tobytes()


def test_the_file_is_a_png_and_nothing_lies_beside_it(tmp_path):
    path = plot_curves([_curve("ours", 0.05, baselines={"svd": _curve("svd", 0)})], tmp_path / "curve.png")
    (width, height), _ = _pixels(path)
    assert width > height > 300
    assert [item.name for item in tmp_path.iterdir()] == ["curve.png"]


def test_the_picture_shows_bands_and_baselines(tmp_path):
    alone = _pixels(plot_curves([_curve("ours", 0.05)], tmp_path / "a.png"))
    wide = _pixels(plot_curves([_curve("ours", 0.05, band=0.05)], tmp_path / "b.png"))
    beside = _pixels(plot_curves([_curve("ours", 0.05, baselines={"svd": _curve("svd", 0)})], tmp_path / "c.png"))
    again = _pixels(plot_curves([_curve("ours", 0.05)], tmp_path / "d.png"))
    assert alone == again
    assert len({alone, wide, beside}) == 3


def test_no_global_state_is_touched(tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    plot_curves([_curve("ours", 0)], tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_curves_of_two_splits_are_refused(tmp_path):
    other = _curve("svd", 0)
    other.split = "test_unseen"
    with pytest.raises(ValueError, match="share metric and split"):
        plot_curves([_curve("ours", 0), other], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
