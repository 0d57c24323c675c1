import sys
from pathlib import Path

import evaluate
import pytest
import yaml

from hf_matryoshka.evaluation.metrics import metric_path
from hf_matryoshka.evaluation.metrics.paths import METRIC_NAMES


@pytest.fixture(scope="module", autouse=True)
def module_cache(tmp_path_factory):
    """evaluate copies what it loads; once for all tests, because it puts the folder on the import path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        patch.setattr(sys, "path", list(sys.path))
        yield
    for name in [name for name in sys.modules if name.split(".")[0] == "evaluate_modules"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        ("autc", {"predictions": [0.2, 0.4, 0.6], "references": [16, 64, 256]}, {"autc": pytest.approx(0.4)}),
        (
            "monotonicity_violations",
            {"predictions": [0.25, 0.5, 0.375]},
            {"monotonicity_violations": 1, "pairs": [(1, 2)]},
        ),
        (
            "prefix_overlap",
            {
                "predictions": [[1.0], [1.0], [-1.0], [-1.0]],
                "references": [[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-0.9, 0.1]],
                "k": 1,
            },
            {"prefix_overlap": 1.0},
        ),
    ],
)
def test_every_module_loads_from_its_folder_and_computes(name, inputs, expected):
    metric = evaluate.load(metric_path(name))
    assert metric.compute(**inputs) == expected
    assert metric.name.endswith(name)


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_every_folder_is_a_whole_space(name):
    folder = Path(metric_path(name))
    header = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert header["sdk"] == "gradio"
    assert (folder / header["app_file"]).is_file()
    assert "hf-matryoshka" in (folder / "requirements.txt").read_text(encoding="utf-8")


def test_an_unknown_metric_names_those_that_exist():
    with pytest.raises(ValueError, match="'ndcg' does not exist; choose one of autc, "):
        metric_path("ndcg")
