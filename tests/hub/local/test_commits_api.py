"""Commits: what becomes of the files, and which commits are refused."""

import base64
import json

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import BadRequestError, EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError


COMMIT = "/api/models/me/x/commit/main"


def lines(*operations, header=None):
    header = {"summary": "m"} if header is None else header
    return "\n".join(json.dumps(line) for line in ({"key": "header", "value": header}, *operations))


def file(path, content=b"x", **options):
    value = {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64", **options}
    return {"key": "file", "value": value}


def test_additions_deletions_and_copies_in_one_commit(api, hub, fill):
    fill("me/x", {"a.txt": b"a", "old/b.txt": b"b", "old/c/d.bin": b"d" * 100, "keep.txt": b"k"})
    operations = [
        CommitOperationDelete("old/"),
        CommitOperationDelete("a.txt"),
        CommitOperationAdd("old/new.txt", b"n"),
        CommitOperationCopy("keep.txt", "copy.txt"),
        CommitOperationCopy("old/c/d.bin", "copy.bin", src_revision=hub.commits("me/x")[0].sha),
    ]
    info = api.create_commit("me/x", operations, commit_message="Title", commit_description="Body")
    files = hub.files("me/x")
    del files[".gitattributes"]
    assert files == {"copy.bin": b"d" * 100, "copy.txt": b"k", "keep.txt": b"k", "old/new.txt": b"n"}
    last = hub.commits("me/x")[0]
    assert (last.sha, last.title, last.message) == (info.oid, "Title", "Body")
    assert last.files["copy.bin"].lfs and not last.files["copy.txt"].lfs


def test_unchanged_files_make_no_commit(api, hub, fill):
    files = {"a.txt": b"a", "model.safetensors": b"m" * 1000}
    sha = fill("me/x", files)
    received = sum(request.received for request in hub.requests if request.method == "PUT")
    assert fill("me/x", files) == sha and len(hub.commits("me/x")) == 2
    assert sum(request.received for request in hub.requests if request.method == "PUT") == received == 1000
    # A content that the hub has under another name is not sent again.
    fill("me/x", {"other.safetensors": b"m" * 1000})
    assert sum(request.received for request in hub.requests if request.method == "PUT") == received


def test_an_empty_commit_is_a_commit(raw, hub, api):
    """The Hub takes it; it is the client that leaves it out."""
    api.create_repo("me/x")
    assert raw("POST", COMMIT, lines()).status == 200
    assert [commit.title for commit in hub.commits("me/x")] == ["m", "initial commit"]
    assert len({str(commit.files) for commit in hub.commits("me/x")}) == 1


def test_a_file_sent_again_unchanged_keeps_the_commit_that_changed_it(raw, hub, fill):
    sha = fill("me/x", {"a.txt": b"a", "b.txt": b"b"})
    assert raw("POST", COMMIT, lines(file("a.txt", b"a"), file("b.txt", b"c"))).status == 200
    last = hub.commits("me/x")[0]
    assert last.files["a.txt"].commit == sha and last.files["b.txt"].commit == last.sha


def test_a_stale_parent_is_refused(api, hub, fill):
    first = fill("me/x", {"a.txt": b"a"})
    second = fill("me/x", {"a.txt": b"b"}, parent_commit=first)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as error:
        fill("me/x", {"a.txt": b"c"}, parent_commit=first)
    assert error.value.response.status_code == 412
    assert hub.commits("me/x")[0].sha == second and hub.files("me/x")["a.txt"] == b"b"


def test_missing_files_and_revisions(api, hub, fill):
    fill("me/x", {"a/b.txt": b"a"})
    for path in ("gone.txt", "a", "gone/"):
        with pytest.raises(EntryNotFoundError, match="with this name doesn't exist"):
            api.create_commit("me/x", [CommitOperationDelete(path)], commit_message="m")
    with pytest.raises(RevisionNotFoundError):
        fill("me/x", {"a.txt": b"a"}, revision="nowhere")
    assert len(hub.commits("me/x")) == 2


def test_a_pull_request_is_refused_with_a_reason(api, hub, raw, fill):
    api.create_repo("me/x")
    with pytest.raises(BadRequestError, match="no pull requests"):
        fill("me/x", {"a.txt": b"a"}, create_pr=True)
    assert raw("POST", f"{COMMIT}?create_pr=1", lines(file("a.txt"))).status == 400
    assert len(hub.commits("me/x")) == 1


def test_history_comes_in_pages(api, raw, fill):
    for number in range(3):
        fill("me/x", {"a.txt": str(number).encode()}, commit_message=f"commit {number}")
    titles = ["commit 2", "commit 1", "commit 0", "initial commit"]
    assert [commit.title for commit in api.list_repo_commits("me/x", formatted=True)] == titles
    page = raw("GET", "/api/models/me/x/commits/main?limit=3")
    assert len(page.json) == 3 and 'rel="next"' in page.headers["Link"]
    dates = [commit.created_at for commit in api.list_repo_commits("me/x")]
    assert dates == sorted(dates, reverse=True)


def test_which_files_are_large_or_ignored(api, hub, fill):
    files = {"a.npy": b"n", "b.mine": b"m", "c.txt": b"t", "empty.bin": b"", "runs/x/d.txt": b"d", "keep.log": b"k"}
    rules = {".gitattributes": b"*.mine filter=lfs -text\n", ".gitignore": b"# logs\n*.log\n!keep.log\nruns/\n"}
    fill("me/x", rules)
    fill("me/x", {**files, "drop.log": b"l"})
    entries = hub.commits("me/x")[0].files
    assert {path for path in entries if entries[path].lfs} == {"b.mine"}
    assert set(entries) == {*rules, "a.npy", "b.mine", "c.txt", "empty.bin", "keep.log"}
    fill("me/x", {".gitattributes": b"*.npy filter=lfs\n"})
    fill("me/x", {"a.npy": b"other"})
    assert hub.commits("me/x")[0].files["a.npy"].lfs


def test_large_files_go_to_lfs_whatever_their_name(raw, api):
    api.create_repo("me/x")
    sizes = [{"path": "a.txt", "size": size, "sample": ""} for size in (10 * 1024**2, 10 * 1024**2 + 1)]
    answer = raw("POST", "/api/models/me/x/preupload/main", {"files": sizes})
    assert [item["uploadMode"] for item in answer.json["files"]] == ["regular", "lfs"]


def test_a_file_that_belongs_into_lfs_is_not_held_in_memory(raw, hub, api):
    api.create_repo("me/x")
    assert raw("POST", COMMIT, lines(file("a.txt", b"0" * (10 * 1024**2)))).status == 200
    answer = raw("POST", COMMIT, lines(file("a.txt", b"0" * (16 * 1024**2))))
    assert answer.status == 413 and "LFS" in answer.json["error"]
    assert len(hub.files("me/x")["a.txt"]) == 10 * 1024**2


OID = "0" * 64
BAD_COMMITS = {
    "no header": json.dumps(file("a.txt")),
    "nothing": "",
    "no json": lines() + "\n{",
    "not an object": lines() + "\n[1]",
    "empty summary": lines(header={"summary": " "}),
    "no summary": lines(header={}),
    "wrong parent": lines(header={"summary": "m", "parentCommit": 3}),
    "unknown key": lines({"key": "rename", "value": {"path": "a"}}),
    "no value": lines({"key": "file"}),
    "bad base64": lines(file("a.txt", content=b"") | {"value": {"path": "a", "content": "?", "encoding": "base64"}}),
    "bad encoding": lines(file("a.txt", encoding="rot13")),
    "content not text": lines({"key": "file", "value": {"path": "a", "content": 3}}),
    "unknown object": lines({"key": "lfsFile", "value": {"path": "a", "oid": OID, "algo": "sha256"}}),
    "traversal in oid": lines({"key": "lfsFile", "value": {"path": "a", "oid": "../" * 20 + "abcd"}}),
    "card that contains itself": lines(file("README.md", b"---\na: &a [*a]\n---\n")),
    "card without end": lines(file("README.md", b"---\na: " + b"[" * 3000 + b"\n---\n")),
    "half a character": lines(file("a\ud800/b")),
    "file in file": lines(file("a"), file("a/b")),
}


@pytest.mark.parametrize("name", BAD_COMMITS)
def test_malformed_commits(raw, hub, api, name):
    api.create_repo("me/x")
    answer = raw("POST", COMMIT, BAD_COMMITS[name])
    assert answer.status == 400 and answer.json["error"] == answer.headers["X-Error-Message"]
    assert len(hub.commits("me/x")) == 1 and list(hub.files("me/x")) == [".gitattributes"]


def test_an_lfs_file_of_another_size_is_refused(raw, hub, fill):
    fill("me/x", {"a.bin": b"abc"})
    oid = hub.commits("me/x")[0].files["a.bin"].sha256
    body = lines({"key": "lfsFile", "value": {"path": "b.bin", "oid": oid, "size": 4}})
    assert raw("POST", COMMIT, body).status == 400 and "b.bin" not in hub.files("me/x")


def test_a_commit_may_hold_text_and_come_in_chunks(raw, hub, api):
    api.create_repo("me/x")
    body = lines({"key": "file", "value": {"path": "a.txt", "content": "ä", "encoding": "utf-8"}}).encode()
    chunks = (
        b"".join(b"%x;x=1\r\n%s\r\n" % (len(piece), piece) for piece in (body[:7], body[7:])) + b"0\r\nA: b\r\n\r\n"
    )
    answer = raw("POST", COMMIT, chunks, Content_Length="", Transfer_Encoding="chunked")
    assert answer.status == 200 and hub.files("me/x")["a.txt"] == "ä".encode()
    answer = raw("POST", COMMIT, b"zz\r\n", Content_Length="", Transfer_Encoding="chunked")
    assert answer.status == 400
