import json
import platform
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hf_matryoshka.evaluation.curve import Curve, LevelPoint
from hf_matryoshka.evaluation.report import write_report


def curve(system, shift=0.0, per_query=True):
    values = {4: np.array([0.2, 0.4, 0.6]) + shift, 8: np.array([0.4, 0.6, 0.8]) + shift}
    points = [
        LevelPoint(
            f"d{dim}", dim, found.mean(), None, None, {"bytes_per_vector": 4 * dim}, found if per_query else None
        )
        for dim, found in values.items()
    ]
    return Curve(points, "ndcg_at_10", "test", system)


def test_a_report_says_where_its_rows_come_from(tmp_path):
    path = write_report(
        tmp_path / "new" / "report.json", "demo", curve("ours").rows(seeds=2, dataset="x"), chosen="by y"
    )
    report = json.loads(path.read_text())
    assert set(report) == {"name", "date", "command", "machine", "versions", "chosen", "rows"}
    assert set(report["machine"]) == {"cpu", "cores", "device"} and "torch" in report["versions"]
    row = report["rows"][0]
    assert row["value"] == pytest.approx(0.4)
    assert {row[key] for key in ("system", "level", "split", "metric", "seeds", "dataset")} == {
        "ours",
        "d4",
        "test",
        "ndcg_at_10",
        2,
        "x",
    }


@pytest.mark.parametrize(
    ("text", "name"), [("cores : 1\nmodel name : Fast 9\nmodel name : Fast 9", ", Fast 9"), ("cores : 1", "")]
)
def test_a_report_names_the_processor(tmp_path, monkeypatch, text, name):
    path = write_report(tmp_path / "report.json", "demo", [])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *args, **kwargs: text)
        write_report(path, "demo", [])
    assert json.loads(path.read_text())["machine"]["cpu"] == platform.machine() + name


def test_a_report_names_no_path_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/run.py", "--data", "../data/x", "--file", str(tmp_path / "a.onnx")])
    report = json.loads(write_report(tmp_path / "report.json", "demo", []).read_text())
    assert report["command"] == "run.py --data ../data/x --file a.onnx"


def test_a_report_names_the_versions_of_what_it_compares_with(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "cma", raising=False)
    assert "cma" not in json.loads(write_report(tmp_path / "report.json", "demo", []).read_text())["versions"]
    monkeypatch.setitem(sys.modules, "cma", ModuleType("cma"))
    assert json.loads(write_report(tmp_path / "report.json", "demo", []).read_text())["versions"]["cma"]


def test_a_subset_of_the_queries_with_its_baselines():
    whole = curve("ours")
    whole.baselines["svd"] = curve("svd", shift=-0.1)
    part = whole.subset([0, 2], "test_unseen")
    assert part.split == part.baselines["svd"].split == "test_unseen"
    assert part.qualities == pytest.approx([0.4, 0.6]) and part.baselines["svd"].qualities == pytest.approx([0.3, 0.5])
    assert part["d4"].low <= 0.4 <= part["d4"].high and part["d4"].cost == {"bytes_per_vector": 16}
    with pytest.raises(ValueError, match="d4 of ours has no values a query"):
        curve("ours", per_query=False).subset([0], "part")
