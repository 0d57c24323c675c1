"""Downloads and listings."""

import pytest
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import get_session


CONTENT = bytes(range(256)) * 40


def test_downloads_are_exact_and_counted(hub, fill):
    first = fill("me/x", {"model.safetensors": CONTENT, "a b/ü.txt": b"text"})
    fill("me/x", {"model.safetensors": b"new"})
    with open(hf_hub_download("me/x", "model.safetensors", revision=first), "rb") as file:
        assert file.read() == CONTENT
    assert hub.bytes_served("me/x", "model.safetensors") == len(CONTENT)
    hf_hub_download("me/x", "model.safetensors", revision=first)  # from the cache
    with open(hf_hub_download("me/x", "ü.txt", subfolder="a b")) as file:
        assert file.read() == "text"
    assert hub.bytes_served("me/x") == len(CONTENT) + 4
    folder = snapshot_download("me/x")
    with open(f"{folder}/model.safetensors", "rb") as file:
        assert file.read() == b"new"
    assert hub.bytes_served("me/x", "model.safetensors") == len(CONTENT) + 3
    assert hub.bytes_served("me/x", repo_type="dataset") == 0


def test_headers(hub, fill):
    sha = fill("me/x", {"model.safetensors": CONTENT, "a.html": b"<p>"})
    entries = hub.commits("me/x")[0].files
    large = get_hf_file_metadata(hf_hub_url("me/x", "model.safetensors"))
    assert (large.commit_hash, large.etag, large.size) == (sha, entries["model.safetensors"].sha256, len(CONTENT))
    small = get_hf_file_metadata(hf_hub_url("me/x", "a.html"))
    assert (small.etag, small.size) == (entries["a.html"].oid, 3)
    assert large.xet_file_data is None is small.xet_file_data
    answer = get_session().get(hf_hub_url("me/x", "a.html"))
    assert answer.headers["Content-Disposition"] == "attachment" and answer.content == b"<p>"
    assert hub.bytes_served("me/x") == 3


@pytest.mark.parametrize(
    "header,start,end",
    [("bytes=0-0", 0, 1), ("bytes=10-19", 10, 20), ("bytes=10200-", 10200, 10240), ("bytes=-3", 10237, 10240)]
    + [("bytes=0-99999", 0, 10240), ("bytes=-99999", 0, 10240)],
)
def test_parts(raw, hub, fill, header, start, end):
    fill("me/x", {"a.bin": CONTENT})
    answer = raw("GET", "/me/x/resolve/main/a.bin", Range=header)
    assert answer.status == 206 and answer.body == CONTENT[start:end]
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/10240"
    assert hub.bytes_served("me/x", "a.bin") == end - start


def test_parts_that_are_none(raw, hub, fill):
    fill("me/x", {"a.bin": CONTENT, "empty": b""})
    for header in ("bytes=10240-", "bytes=99999-100000", "bytes=-0"):
        answer = raw("GET", "/me/x/resolve/main/a.bin", Range=header)
        assert answer.status == 416 and answer.headers["Content-Range"] == "bytes */10240"
    assert raw("GET", "/me/x/resolve/main/empty", Range="bytes=0-").status == 416
    # HTTP allows to ignore what is not understood.
    for header in ("bytes=5-2", "bytes=0-1,4-5", "lines=0-1", "bytes=-", "bytes=a-b"):
        answer = raw("GET", "/me/x/resolve/main/a.bin", Range=header)
        assert answer.status == 200 and answer.body == CONTENT
    answer = raw("HEAD", "/me/x/resolve/main/a.bin", Range="bytes=0-1")
    assert answer.status == 200 and answer.headers["Content-Length"] == "10240" and answer.body == b""


def test_what_is_missing_raises_the_right_error(api, raw, fill):
    sha = fill("me/x", {"a/b.txt": b"b"})
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("me/y", "a.txt")
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("bert", "a.txt")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("me/y", token=False)
    for revision in ("nowhere", "0" * 40, "refs/pr/1", "refs/heads/nowhere", "refs/convert/parquet"):
        with pytest.raises(RevisionNotFoundError):
            hf_hub_download("me/x", "a/b.txt", revision=revision)
    for path in ("b.txt", "a", "a/b.txt/c"):
        with pytest.raises(EntryNotFoundError):
            hf_hub_download("me/x", path)
    # By this header clients remember that a file does not exist.
    assert raw("HEAD", "/me/x/resolve/main/b.txt").headers["X-Repo-Commit"] == sha


def test_trees(api, raw, fill):
    first = fill("me/x", {"a/b/c.txt": b"c", "a/d.txt": b"d", "e.bin": b"e"})
    second = fill("me/x", {"a/d.txt": b"dd"})
    top = {entry.path: entry for entry in api.list_repo_tree("me/x")}
    assert list(top) == [".gitattributes", "a", "e.bin"] and top["e.bin"].lfs.size == 1
    assert [entry.path for entry in api.list_repo_tree("me/x", "a", recursive=True)] == ["a/b", "a/b/c.txt", "a/d.txt"]
    assert api.list_repo_files("me/x") == [".gitattributes", "a/b/c.txt", "a/d.txt", "e.bin"]
    changed = {entry.path: entry.last_commit.oid for entry in api.list_repo_tree("me/x", "a", expand=True)}
    assert changed == {"a/b": first, "a/d.txt": second}
    for path in ("nowhere", "a/d.txt", "a/b/c"):
        with pytest.raises(EntryNotFoundError):
            list(api.list_repo_tree("me/x", path))
    page = raw("GET", "/api/models/me/x/tree/main?recursive=True&limit=4")
    assert len(page.json) == 4
    rest = raw("GET", "/api" + page.headers["Link"].split(">")[0].split("/api")[1])
    paths = [entry["path"] for entry in page.json + rest.json]
    assert paths == [".gitattributes", "a", "a/b", "a/b/c.txt", "a/d.txt", "e.bin"]


def test_paths_info(api, raw, fill):
    sha = fill("me/x", {"a/b.txt": b"b"})
    found = api.get_paths_info("me/x", ["a", "a/b.txt", "nowhere"], expand=True)
    assert [entry.path for entry in found] == ["a", "a/b.txt"] and found[1].last_commit.oid == sha
    assert api.file_exists("me/x", "a/b.txt") and not api.file_exists("me/x", "nowhere")
    address = "/api/models/me/x/paths-info/main"
    answer = raw("POST", address, {"paths": ["a/"]}, Content_Type="application/json")
    assert [entry["type"] for entry in answer.json] == ["directory"]
    assert raw("POST", address, {"paths": "a"}, Content_Type="application/json").status == 400
    assert raw("POST", address, {"paths": ["a"] * 1001}, Content_Type="application/json").status == 413


def test_the_file_system_view(hub, fill):
    from huggingface_hub import HfFileSystem

    fill("me/x", {"a/b.txt": b"text"})
    files = HfFileSystem()
    assert files.read_text("me/x/a/b.txt") == "text" and files.glob("me/x/**/*.txt") == ["me/x/a/b.txt"]
    with files.open("me/x/c.txt", "wb") as file:
        file.write(b"written")
    assert hub.files("me/x")["c.txt"] == b"written"
