"""`make bench` and `make bench-quick`."""

import argparse
import re
import shlex
import sys
from pathlib import Path

import pytest
import quick
import run_all
from run_all import FULL, QUICK, Job


ROOT = Path(__file__).parents[2]


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A folder with its own scripts and data."""
    monkeypatch.setattr(run_all, "ROOT", tmp_path / "main")
    monkeypatch.setattr(run_all, "FOLDER", tmp_path)
    (tmp_path / "main").mkdir()
    (tmp_path / "shared" / "data" / "here").mkdir(parents=True)
    (tmp_path / "good.py").write_text("import sys; print(sys.argv[1:])")
    (tmp_path / "bad.py").write_text("print('before'); raise SystemExit('out of luck')")
    return tmp_path


def test_a_failure_and_what_is_missing_do_not_stop_the_others(scripts, capsys):
    jobs = [
        Job("bad.py", 1),
        Job("good.py --seeds 1", 1, data=("here",)),
        Job("good.py --out other.json", 1, data=("nowhere",)),
        Job("bad.py --out run.json", 1, runs=("outputs/run",)),
        Job("bad.py --out package.json", 1, packages=("no_such_module",)),
    ]
    assert run_all.run(jobs) == 1
    shown = capsys.readouterr().out
    assert "[1/5] bad failed with status 1, see outputs/bench/logs/bad.log" in shown
    assert "    before\n    out of luck\n" in shown and "[2/5] good done" in shown
    for reason in ("no data in ../shared/data/nowhere", "there is no outputs/run", "no_such_module is not installed"):
        assert f"skipped: {reason}" in shown
    assert "where the data comes from is said in " in shown
    assert (scripts / "main" / "outputs" / "bench" / "logs" / "good.log").read_text() == "['--seeds', '1']\n"
    assert run_all.run(jobs[1:]) == 0


def test_jobs_are_chosen_by_name():
    assert [job.name for job in QUICK] == list(dict.fromkeys(job.name for job in QUICK))
    assert [job.name for job in run_all.chosen(QUICK, ["lsbo"])] == ["lsbo"]
    with pytest.raises(SystemExit, match="there is no benchmark 'lsbO'; there are adaptor_scifact, "):
        run_all.chosen(QUICK, ["lsbO"])
    names = [job.name for job in FULL]
    assert len(set(names)) == len(names) and {"delta_packing_shares", "delta_ablations", "train-gpt"} <= set(names)


@pytest.mark.parametrize("job", [*QUICK, *FULL], ids=lambda job: job.command[:40])
def test_scripts_configs_and_options_exist(job):
    first, *others = shlex.split(job.command)
    for word in others:
        if word.startswith("configs/"):
            assert (ROOT / word).is_file()
    if first == "hf-matryoshka":
        return
    text = (ROOT / "benchmarks" / first).read_text(encoding="utf-8")
    for option in (word for word in others if word.startswith("--")):
        if option == "--quick":
            assert "import quick\n" in text
        elif first == "mamba_speed.py":  # hands its options on
            assert re.search(rf"\b{option[2:]}:", (ROOT / "hf_matryoshka" / "cli" / "bench.py").read_text())
        else:
            assert f'"{option}"' in text


def test_every_script_that_writes_rows_is_run():
    run = {shlex.split(job.command)[0] for job in (*FULL, *run_all.unnamed())}
    writing = {path.name for path in (ROOT / "benchmarks").glob("*.py") if "write_report(" in path.read_text()}
    assert writing - {"run_all.py"} <= run


def test_every_committed_file_comes_from_a_job():
    written = {job.name for job in (*FULL, *run_all.unnamed())}
    # What `make quickstart` leaves in its own folder.
    assert {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")} - {"quickstart"} <= written


def test_quick_runs_write_below_outputs(monkeypatch):
    def parse(*words):
        monkeypatch.setattr(sys, "argv", ["demo.py", *words])
        parser = argparse.ArgumentParser()
        parser.add_argument("--seeds", type=int, default=5)
        parser.add_argument("--levels", nargs="*", default=["a", "b"])
        parser.add_argument("--work", type=Path, default=Path("outputs/demo"))
        parser.add_argument("--out", default="benchmarks/results/demo.json")
        return vars(quick.parse(parser, "demo", seeds=1, levels=["a"]))

    full = {"seeds": 5, "levels": ["a", "b"], "work": Path("outputs/demo"), "out": "benchmarks/results/demo.json"}
    assert parse() == {**full, "quick": False}
    small = {"seeds": 1, "levels": ["a"], "work": Path("outputs/bench/runs/demo"), "out": "outputs/bench/demo.json"}
    assert parse("--quick") == {**small, "quick": True}
    assert parse("--quick", "--seeds", "3", "--out", "x.json") == {**small, "seeds": 3, "out": "x.json", "quick": True}


def test_make_has_both():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\nbench: $(STAMP)\n\t$(BIN)/python benchmarks/run_all.py $(ARGS)\n" in text
    assert "\nbench-quick: $(STAMP)\n\t$(BIN)/python benchmarks/run_all.py --quick $(ARGS)\n" in text
