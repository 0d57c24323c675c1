"""A flaky network: right bytes or an error, never anything else."""

import pytest
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import httpx

from hf_matryoshka.hub import Faults


CONTENT = bytes(range(256)) * 4000


def outcomes(hub, raw, count=60):
    """What becomes of requests for one file, as the client and as the log see it."""
    hub.requests.clear()
    seen = []
    for _ in range(count):
        try:
            seen.append(raw("GET", "/me/x/resolve/main/a.bin").body == CONTENT)
        except Exception as error:
            seen.append(type(error).__name__)
    return seen, [request.fault for request in hub.requests]


def test_the_same_seed_gives_the_same_faults(hub, raw, fill):
    fill("me/x", {"a.bin": CONTENT})
    runs = []
    for seed in (1, 1, 2):
        hub.faults = Faults(drop=0.3, cut=0.3, delay=0.2, delay_seconds=0.001, seed=seed)
        runs.append(outcomes(hub, raw))
    assert runs[0] == runs[1] != runs[2]
    seen, faults = runs[0]
    assert set(faults) == {"drop_before", "drop_after", "cut", "delay", None}
    # What the client sees is what the log says.
    names = {"drop_before": "RemoteDisconnected", "drop_after": "RemoteDisconnected", "cut": "IncompleteRead"}
    assert seen == [names.get(fault, True) for fault in faults]
    hub.faults = None
    assert outcomes(hub, raw, 3) == ([True] * 3, [None] * 3)


@pytest.mark.parametrize("seed", range(6))
def test_a_download_is_right_or_fails(hub, fill, no_waiting, tmp_path, seed):
    fill("me/x", {"a.bin": CONTENT, "b.txt": b"text"})
    hub.faults = Faults(drop=0.2, cut=0.2, delay=0.2, delay_seconds=0.001, seed=seed)
    done = 0
    for attempt in range(10):
        for name, content in (("a.bin", CONTENT), ("b.txt", b"text")):
            try:
                path = hf_hub_download("me/x", name, cache_dir=tmp_path / str(attempt))
            except (OSError, httpx.HTTPError):
                continue
            done += 1
            with open(path, "rb") as file:
                assert file.read() == content
    assert done > 5 and {"drop_before", "drop_after", "cut"} & {request.fault for request in hub.requests}


def test_a_cut_answer_is_taken_up_where_it_broke_off(hub, fill, no_waiting, tmp_path):
    content = CONTENT * 24  # more than two of the pieces in which the client writes
    fill("me/x", {"a.bin": content})
    hub.faults = Faults(cut=1.0)
    hub.requests.clear()

    def stop(request):
        if request.method == "GET" and request.fault == "cut":
            hub.faults = None

    hub.on_request, before = stop, hub.on_request
    try:
        with open(hf_hub_download("me/x", "a.bin"), "rb") as file:
            assert file.read() == content
    finally:
        hub.on_request = before
    served = [request for request in hub.requests if request.method == "GET"]
    assert [request.status for request in served] == [200, 206] and served[0].sent == len(content) // 2
    assert served[1].sent < len(content) and hub.bytes_served("me/x", "a.bin") < 1.5 * len(content)


def seed_of(first, count):
    """A seed whose first fault is `first` at the request number `count`, with no fault before it."""
    for seed in range(10_000):
        faults = Faults(drop=0.2, seed=seed)
        if [faults.draw() for _ in range(count + 1)] == [None] * count + [first]:
            return seed
    raise AssertionError


@pytest.mark.parametrize("fault,commits", [("drop_before", 1), ("drop_after", 2)])
def test_a_commit_whose_answer_is_lost(hub, api, fill, fault, commits):
    """It happened or it did not; trying again ends at exactly one commit either way."""
    api.create_repo("me/x")
    # Requests of `fill`: create, preupload, commit.
    hub.faults = Faults(drop=0.2, seed=seed_of(fault, 2))
    with pytest.raises(httpx.RemoteProtocolError):
        fill("me/x", {"a.txt": b"a"})
    assert hub.requests[-1].path.endswith("/commit/main") and hub.requests[-1].fault == fault
    assert len(hub.commits("me/x")) == commits
    hub.faults = None
    fill("me/x", {"a.txt": b"a"})
    assert len(hub.commits("me/x")) == 2 and hub.files("me/x")["a.txt"] == b"a"


@pytest.mark.parametrize("seed", range(5))
def test_pushes_end_whole(hub, api, fill, no_waiting, seed):
    files = {"a.safetensors": CONTENT, "b.bin": b"b" * 1000, "c.txt": b"c", "README.md": b"---\ntags: [a]\n---\n"}
    hub.faults = Faults(drop=0.2, cut=0.1, seed=seed)
    for _ in range(50):
        try:
            fill("me/x", files)
            break
        except (OSError, RuntimeError, httpx.HTTPError):
            if hub.repos() and len(hub.commits("me/x")) > 1:
                assert files.items() <= hub.files("me/x").items()
    else:
        raise AssertionError("never whole")
    hub.faults = None
    assert len(hub.commits("me/x")) == 2
    assert files.items() <= hub.files("me/x").items()


def test_bad_shares():
    for bad in ({"drop": -0.1}, {"cut": 1.1}, {"drop": 0.6, "cut": 0.6}, {"delay_seconds": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Faults(**bad)
