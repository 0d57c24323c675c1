import pytest

from hf_matryoshka.recipes.run_folder import finish_run, is_finished, load_report, open_run


class Saved:
    """What a run made: writes a file of its own, or fails."""

    def __init__(self, name, error=None):
        self.name, self.error = name, error

    def save_pretrained(self, folder):
        folder.mkdir(exist_ok=True)
        (folder / self.name).write_text(self.name)
        if self.error is not None:
            raise self.error


def test_a_finished_run_has_all_its_parts_and_its_report(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights-of-an-interrupted-call").touch()
    report = {"steps": 3, "recipe": {"dims": [1, 2]}}
    finish_run(tmp_path, report, Saved("model"), Saved("tokenizer"))
    assert is_finished(tmp_path) and load_report(tmp_path) == report
    assert {file.name for file in (tmp_path / "model").iterdir()} == {"model", "tokenizer"}


def test_a_run_whose_model_cannot_be_saved_is_not_finished(tmp_path):
    with pytest.raises(OSError, match="no room"):
        finish_run(tmp_path, {}, Saved("model"), Saved("tokenizer", OSError("no room")))
    assert not is_finished(tmp_path) and not list(tmp_path.iterdir())


def test_a_folder_is_opened_again_by_the_same_run_only(tmp_path):
    folder = open_run(tmp_path / "run", "a")
    assert open_run(folder, "a") == folder
    with pytest.raises(ValueError, match="run holds other files or a run with other data or options"):
        open_run(folder, "b")
    (folder / "model").write_text("of a")
    assert not (open_run(folder, "b", overwrite=True) / "model").exists()


def test_several_processes_would_write_over_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="a run is made by one process, but the launcher started 2; call it without"):
        open_run(tmp_path / "run", "a")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert open_run(tmp_path / "run", "a").is_dir()
