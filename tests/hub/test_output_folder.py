"""Folders that appear whole or not at all."""

import os

import pytest

from hf_matryoshka.hub.manifest import MANIFEST_FILE
from hf_matryoshka.hub.output_folder import check_output_dir, staged_folder


def fill(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("old")


def test_a_folder_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "d64"
    with staged_folder(target) as folder:
        assert folder.name == "d64"
        (folder / "a").write_text("new")
        assert not target.exists()
    assert (target / "a").read_text() == "new"
    assert os.listdir(target.parent) == ["d64"]


def test_an_error_leaves_what_was_there(tmp_path):
    fill(tmp_path / "d64", "a")
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "d64") as folder:
        (folder / "a").write_text("new")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["d64"]
    assert (tmp_path / "d64" / "a").read_text() == "old"


def test_an_earlier_folder_is_replaced_as_a_whole(tmp_path):
    fill(tmp_path / "d64", "a", "stale")
    with staged_folder(tmp_path / "d64") as folder:
        (folder / "a").write_text("new")
    assert os.listdir(tmp_path / "d64") == ["a"]
    assert os.listdir(tmp_path) == ["d64"]


def test_foreign_folders_are_refused(tmp_path):
    fill(tmp_path / "foreign", "thesis.tex")
    with pytest.raises(FileExistsError, match="foreign holds files that are not an earlier export"):
        check_output_dir(tmp_path / "foreign")
    check_output_dir(tmp_path / "foreign", overwrite=True)


@pytest.mark.parametrize("names", [(), (MANIFEST_FILE, "README.md")])
def test_empty_folders_and_earlier_exports_are_not(tmp_path, names):
    fill(tmp_path / "ours", *names)
    check_output_dir(tmp_path / "ours")
    check_output_dir(tmp_path / "absent")


def test_a_file_is_no_folder(tmp_path):
    fill(tmp_path, "file")
    with pytest.raises(NotADirectoryError, match="file is a file; name a folder"):
        check_output_dir(tmp_path / "file", overwrite=True)


def test_a_folder_that_cannot_be_written(tmp_path):
    fill(tmp_path, "file")
    with pytest.raises(OSError, match="cannot be written: ") as caught, staged_folder(tmp_path / "file" / "out"):
        raise AssertionError("the block must not start")
    assert str(caught.value).startswith("output_dir ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="cannot be written: permission denied"), staged_folder(tmp_path / "out"):
        raise AssertionError("the block must not start")
