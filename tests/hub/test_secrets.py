"""A token is used, and said and written nowhere."""

import logging
import sys

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http
from huggingface_hub.utils import logging as hub_logging

from hf_matryoshka.cli import main
from hf_matryoshka.hub import repo_sync
from hf_matryoshka.hub.export_family import export_family
from hf_matryoshka.hub.local import Faults


@pytest.fixture
def family(make_adaptor, tmp_path):
    return export_family(make_adaptor(), tmp_path / "family", levels=["d4"])


@pytest.fixture
def said(hub, capfd, caplog, monkeypatch):
    """`said()`: all that was printed and logged since the test began, with every library at debug level."""
    monkeypatch.setattr(repo_sync, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    # Each request as a line for curl.
    monkeypatch.setattr(constants, "HF_DEBUG", True)
    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity_debug()
    # It keeps its records to itself.
    hub_logging.enable_propagation()
    caplog.set_level(logging.DEBUG)
    printed = []

    def collect():
        printed.extend(capfd.readouterr())
        records = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
        assert any(record.levelno == logging.DEBUG for record in caplog.records)
        return "\n".join([*printed, caplog.text, *records])

    yield collect
    hub_logging.disable_propagation()
    hub_logging.set_verbosity(level)


def check_files(folder, *tokens):
    """No file below a folder holds a token."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        data = path.read_bytes()
        assert not any(token.encode() in data for token in tokens), path


def check_hub(hub):
    """Of the hub's own files, only that of the tokens holds them."""
    holding = {
        path.relative_to(hub.folder).as_posix()
        for path in hub.folder.rglob("*")
        if path.is_file() and any(token.encode() in path.read_bytes() for token in (hub.token, hub.read_token))
    }
    assert holding == {"tokens.json"}


@pytest.mark.parametrize("given", [True, False])
def test_a_push_that_succeeds(hub, family, said, tmp_path, monkeypatch, given):
    if given:
        monkeypatch.delenv("HF_TOKEN")
    report = family.push("me/tiny", token=hub.token if given else None)
    assert len(report.commits) == 2
    assert hub.token not in said() + repr(report)
    check_files(tmp_path, hub.token)
    check_hub(hub)


@pytest.mark.parametrize("share", ["drop", "cut"])
def test_a_push_that_fails_half_way(hub, family, said, tmp_path, share):
    served = []

    def fail_after(request):
        served.append(request)
        if len(served) == 8:
            hub.faults = Faults(**{share: 1.0})

    hub.on_request, before = fail_after, hub.on_request
    try:
        with pytest.raises(OSError, match="did not go through") as caught:
            family.push("me/tiny", token=hub.token)
    finally:
        hub.on_request, hub.faults = before, None
    assert len(served) > 8 and hub.repos()  # it was half-way
    told, errors = "", [caught.value]
    for error in errors:
        told += f"{error} {error!r} {error.__dict__}\n"
        errors += [one for one in (error.__cause__, error.__context__) if one is not None and one not in errors]
    assert len(errors) > 1 and hub.token not in told + said()
    check_files(tmp_path, hub.token)
    check_hub(hub)


@pytest.mark.parametrize("token", ["read_token", "foreign"])
def test_a_push_that_is_refused(hub, family, said, tmp_path, token):
    token = getattr(hub, token, "hf_ofsomebodyelse")
    with pytest.raises(PermissionError) as caught:
        family.push("me/tiny", token=token)
    assert token not in said() + repr(caught.value)
    check_files(tmp_path, token)
    check_hub(hub)


@pytest.mark.parametrize("debug", [False, True])
def test_the_command(hub, family, said, tmp_path, monkeypatch, capfd, debug):
    if debug:
        monkeypatch.setenv("HF_MATRYOSHKA_DEBUG", "1")
    spoken = ""
    for arguments in (["--dry-run"], ["--json"], ["--private"]):
        monkeypatch.setattr(sys, "argv", ["hf-matryoshka", "push", str(family.folder), "me/tiny", *arguments])
        main()
        spoken += "".join(capfd.readouterr())
    assert "me/tiny-d4: would get" in spoken and '"repo_id": "me/tiny-d4"' in spoken
    hub.faults = Faults(drop=1.0)
    # The traceback is the interpreter's: the error has the words.
    with pytest.raises(OSError if debug else SystemExit) as caught:
        main()
    hub.faults = None
    spoken += f"{caught.value}" + "".join(capfd.readouterr())
    assert "did not go through" in spoken
    assert hub.token not in spoken + said()
    check_files(tmp_path, hub.token)
    check_hub(hub)


def test_an_export_straight_to_the_hub(hub, make_adaptor, said, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MATRYOSHKA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    export_family(make_adaptor(), "me/tiny", levels=["d4"])
    assert hub.token not in said()
    check_files(tmp_path, hub.token)
    check_hub(hub)
