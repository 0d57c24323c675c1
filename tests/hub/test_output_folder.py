"""Folders that appear whole or not at all."""

import errno
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext

import pytest
from filelock import FileLock

from hf_matryoshka.hub.manifest import MANIFEST_FILE
from hf_matryoshka.hub.output_folder import check_output_dir, staged_folder, staged_folders


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


def test_a_folder_without_permission():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        root = os.geteuid() == 0
        if root:
            # root may write anywhere
            os.seteuid(65534)
        try:
            with (
                pytest.raises(PermissionError, match="out cannot be written: permission denied"),
                staged_folder(f"{folder}/out"),
            ):
                raise AssertionError("the block must not start")
        finally:
            if root:
                os.seteuid(0)
            os.chmod(folder, 0o755)


def fail_at(monkeypatch, number, error):
    """Let a rename fail, counted from 0."""
    rename, calls = os.replace, []

    def replace(source, target):
        calls.append(source)
        if len(calls) == number + 1:
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), KeyboardInterrupt()])
def test_all_folders_are_replaced_or_none(tmp_path, monkeypatch, number, error):
    fill(tmp_path / "d8", "a")
    fail_at(monkeypatch, number, error)
    with pytest.raises(type(error)) as caught, staged_folders([tmp_path / "d4", tmp_path / "d8"]) as folders:
        for folder in folders:
            (folder / "a").write_text("new")
    assert os.listdir(tmp_path) == ["d8"] and (tmp_path / "d8" / "a").read_text() == "old"
    if isinstance(error, OSError):
        assert "cannot be replaced: permission denied; nothing was changed" in str(caught.value)


def test_a_failure_leaves_no_empty_folders(tmp_path):
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "new" / "family" / "d4"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_full_disk_names_the_folder_of_the_family(tmp_path):
    message = f"output_dir {tmp_path}/family cannot be written: no space left on device; nothing was changed there"
    with pytest.raises(OSError, match=message), staged_folders([tmp_path / "family" / name for name in ("a", "b")]):
        raise OSError(errno.ENOSPC, "No space left on device")


KILLED = """
import os, sys
from hf_matryoshka.hub.output_folder import staged_folder

rename, kill = os.replace, lambda *_: os.kill(os.getpid(), 9)
with staged_folder(sys.argv[1]) as folder:
    (folder / "a").write_text("new")
    os.replace = lambda source, target: (rename(source, target), kill())
"""


def test_what_a_killed_process_left_goes_with_the_next(tmp_path):
    fill(tmp_path / "d4", "a")
    fill(tmp_path / ".d4-notes12", "mine")
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "d4")]).returncode == -9
    # It was killed between the two renames.
    assert len(os.listdir(tmp_path)) == 2 and not (tmp_path / "d4").exists()
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "d4"):
        raise KeyboardInterrupt
    assert sorted(os.listdir(tmp_path)) == [".d4-notes12", "d4"]
    assert (tmp_path / "d4" / "a").read_text() == "old"


KILLED_WHEN = """
import os, shutil, sys
from pathlib import Path
from hf_matryoshka.hub import output_folder

kill = lambda *_, **__: os.kill(os.getpid(), 9)
if sys.argv[2] == "made":
    output_folder.FileLock = kill
else:  # half removed, the lock first
    shutil.rmtree = lambda container, **_: ((Path(container) / "lock").unlink(), kill())
with output_folder.staged_folder(sys.argv[1]) as folder:
    (folder / "a").write_text("new")
"""


@pytest.mark.parametrize("moment", ["made", "removed"])
def test_a_folder_without_its_lock_goes_with_the_next(tmp_path, moment):
    fill(tmp_path / "d4", "a")
    assert subprocess.run([sys.executable, "-c", KILLED_WHEN, str(tmp_path / "d4"), moment]).returncode == -9
    assert len(os.listdir(tmp_path)) == 2
    with staged_folder(tmp_path / "d4") as folder:
        (folder / "a").write_text("newer")
    assert os.listdir(tmp_path) == ["d4"] and (tmp_path / "d4" / "a").read_text() == "newer"


@pytest.mark.parametrize("held", [False, True])
def test_of_what_another_machine_left_the_lock_tells(tmp_path, held):
    container = tmp_path / ".d4-abcdef-123-01234567.staged"
    fill(container / "old", "a")
    with FileLock(container / "lock") if held else nullcontext():
        (container / "lock").touch()
        with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "d4"):
            raise KeyboardInterrupt
        assert os.listdir(tmp_path) == ([container.name] if held else ["d4"])


def test_what_is_left_of_a_longer_name_is_left_alone(tmp_path):
    fill(tmp_path / "d4-extra", "a")
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "d4-extra")]).returncode == -9
    (container,) = os.listdir(tmp_path)
    with staged_folder(tmp_path / "d4") as folder:
        (folder / "a").write_text("new")
    assert sorted(os.listdir(tmp_path)) == [container, "d4"]


def test_what_another_process_writes_is_left_alone(tmp_path):
    with staged_folder(tmp_path / "d4") as first:
        (first / "a").write_text("first")
        with staged_folder(tmp_path / "d4") as second:
            (second / "a").write_text("second")
        assert (first / "a").is_file()
    assert (tmp_path / "d4" / "a").read_text() == "first" and os.listdir(tmp_path) == ["d4"]
