import pytest

from hf_matryoshka.recipes.run_folder import open_run


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
