"""Who gets in, and what never gets through."""

import json
import socket

import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import get_session


def test_whoami(hub, api, raw):
    assert api.whoami()["name"] == "me"
    assert [api.whoami(token)["auth"]["accessToken"]["role"] for token in (hub.token, hub.read_token)] == [
        "write",
        "read",
    ]
    assert raw("GET", "/api/whoami-v2", token=None).status == 401
    with pytest.raises(HfHubHTTPError, match="[Ii]nvalid"):
        api.whoami("unknown")


def test_an_unknown_token_opens_nothing(hub, raw, fill):
    fill("me/x", {"a.txt": b"a"})
    for path in ("/api/models/me/x", "/me/x/resolve/main/a.txt", "/api/models"):
        answer = raw("GET", path, token="unknown")
        assert (
            answer.status == 401 and answer.headers["X-Error-Message"] == "Invalid credentials in Authorization header"
        )
    assert raw("GET", "/api/models", token=None, Authorization=f"Basic {hub.token}").status == 401
    assert raw("GET", "/api/models", token=None, Authorization="Bearer ").status == 401


WRITES = [
    ("POST", "/api/repos/create"),
    ("DELETE", "/api/repos/delete"),
    ("POST", "/api/repos/move"),
    ("PUT", "/api/models/me/x/settings"),
    ("POST", "/api/models/me/x/preupload/main"),
    ("POST", "/api/models/me/x/commit/main"),
    ("POST", "/me/x.git/info/lfs/objects/batch"),
    ("POST", "/api/models/me/x/branch/dev"),
    ("DELETE", "/api/models/me/x/branch/main"),
    ("POST", "/api/models/me/x/tag/main"),
    ("DELETE", "/api/models/me/x/tag/v1"),
    ("POST", "/api/collections"),
    ("POST", "/api/lfs/" + "0" * 64 + "/verify"),
    ("GET", "/api/models/me/x/auth-check/write"),
]


@pytest.mark.parametrize("method,path", WRITES)
def test_writing_needs_the_write_token(raw, hub, fill, method, path):
    fill("me/x", {"a.txt": b"a"})
    body = None if method == "GET" else {"name": "x", "fromRepo": "me/x", "toRepo": "me/y", "visibility": "private"}
    answer = raw(method, path, body, token=None)
    assert answer.status == 401 and (answer.headers["X-Error-Code"] == "RepoNotFound") == ("me/x" in path)
    answer = raw(method, path, body, token="read")
    assert answer.status == 403 and "write" in answer.headers["X-Error-Message"]
    assert hub.repos() == ["me/x"] and len(hub.commits("me/x")) == 2


def test_clients_raise_their_own_errors(hub, fill):
    fill("me/x", {"a.txt": b"a"})
    anonymous, reader = HfApi(token=False), HfApi(token=hub.read_token)
    upload = {"repo_id": "me/x", "path_in_repo": "b.txt", "path_or_fileobj": b"b"}
    with pytest.raises(RepositoryNotFoundError):
        anonymous.upload_file(**upload)
    with pytest.raises(HfHubHTTPError, match="403 Forbidden: This token is read-only"):
        reader.upload_file(**upload)
    assert reader.file_exists("me/x", "a.txt") and anonymous.file_exists("me/x", "a.txt")


def test_private_repos_need_a_token(hub, api, raw, fill):
    fill("me/x", {"a.txt": b"a"}, private=True)
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("me/x", "a.txt", token=False)
    reads = ["", "/refs", "/tree/main", "/commits/main", "/auth-check"]
    assert {raw("GET", f"/api/models/me/x{end}", token=None).status for end in reads} == {401}
    assert raw("HEAD", "/me/x/resolve/main/a.txt", token=None).status == 401
    assert {raw("GET", f"/api/models/me/x{end}", token="read").status for end in reads} == {200}
    assert list(api.list_models(token=False)) == [] and len(list(api.list_models())) == 1
    # Nobody learns from the answer whether it exists.
    assert raw("GET", "/api/models/me/x", token=None).body == raw("GET", "/api/models/me/no", token=None).body


BAD_PATHS = [
    "../a",
    "a/../b",
    "/etc/passwd",
    "a//b",
    "a/",
    ".",
    "./a",
    "a/.",
    "",
    "a\\b",
    "a\0b",
    ".git/config",
    "a\nb",
]


@pytest.mark.parametrize("path", [*BAD_PATHS, "x" * 1025, 3, None])
@pytest.mark.parametrize("key", ["file", "lfsFile", "deletedFile", "preupload"])
def test_paths_that_leave_the_repo(raw, hub, api, path, key):
    api.create_repo("me/x")
    if key == "preupload":
        answer = raw("POST", "/api/models/me/x/preupload/main", {"files": [{"path": path, "size": 1, "sample": ""}]})
    else:
        value = {"path": path, "content": "", "encoding": "base64", "oid": "0" * 64}
        operations = [{"key": "header", "value": {"summary": "m"}}, {"key": key, "value": value}]
        answer = raw("POST", "/api/models/me/x/commit/main", "\n".join(map(json.dumps, operations)))
    assert answer.status == 400 and "Invalid path" in answer.json["error"]
    assert list(hub.files("me/x")) == [".gitattributes"]


ADDRESSES = [
    *(f"/me/x/resolve/main/{path}" for path in ("../a", "..%2Fa", "%2e%2e/a", "%2E%2E%2Fa", "%2Fetc/passwd", "/a")),
    *(f"/me/x/resolve/main/{path}" for path in ("a%00", "a%5Cb", "a%5C..%5Cb", ".git/config", "a/./b", "a%0Ab")),
    *(f"/me/x/resolve/{revision}/a.txt" for revision in ("..", "%2e%2e", "..%2F..", "a%00", "-x", "a%20b")),
    *(f"/{repo}/resolve/main/a.txt" for repo in ("../x", "me/..", "%2e%2e/x", "me%2F..%2F..", "me/x%00", "me/x--y")),
    "/api/models/../repo.json",
    "/api/models/me/%2e%2e",
    "/api/models/me%2Fx%2F..",
    "/datasets/../x/resolve/main/a.txt",
    "/api/models/me/x/tree/main/../..",
    "/api/models/me/x/tree/main/%2e%2e%2f",
    "/api/models/me/x/revision/..%2F..%2Frepo",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_that_leave_the_repo(raw, fill, address):
    fill("me/x", {"a.txt": b"a"})
    answer = raw("GET", address)
    assert answer.status == 400 and "Invalid" in answer.json["error"]


def test_doubly_encoded_dots_are_only_a_strange_name(raw, fill):
    fill("me/x", {"a.txt": b"a"})
    assert raw("GET", "/me/x/resolve/main/%252e%252e/a.txt").status == 404


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/models/me/x/unknown", "/api/kernels/me/x", "/me/x/blob/main/a", "/../x"]
)
def test_unknown_routes(raw, fill, path):
    fill("me/x", {"a.txt": b"a"})
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        assert raw(method, path).status == 404
    assert raw("OPTIONS", path).status == 501


def test_other_hosts_are_refused(raw, hub):
    port = hub.endpoint.rsplit(":", 1)[1]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "[::1"):
        assert raw("GET", "/api/models", Host=host).status == 400
    assert raw("GET", "/api/models", Host=f"localhost:{port}").status == 200


def test_too_large_uploads_are_refused_unread(raw, hub, fill, monkeypatch):
    monkeypatch.setattr(hub, "max_upload_bytes", 1000)
    sha = fill("me/x", {"a.txt": b"a"})
    headers = {"Authorization": f"Bearer {hub.token}"}
    commit = "/api/models/me/x/commit/main"
    # The body never comes: an answer means that it was not waited for.
    answer = raw("POST", commit, Content_Length=str(10**12))
    assert answer.status == 413 and "1000 bytes" in answer.json["error"] and answer.headers["Connection"] == "close"
    assert raw("POST", "/api/repos/create", Content_Length=str(10**9)).status == 413
    # Who announces no length is stopped on the way.
    chunk = b"3e8\r\n" + b"a" * 1000 + b"\r\n"
    answer = raw("POST", commit, chunk * 3 + b"0\r\n\r\n", Content_Length="", Transfer_Encoding="chunked")
    assert answer.status == 413
    # All of it is sent before the client looks for an answer.
    answer = get_session().post(hub.endpoint + commit, content=b"b" * 50_000_000, headers=headers)
    assert answer.status_code == 413
    assert hub.commits("me/x")[0].sha == sha


def test_odd_requests_do_no_harm(raw, hub, api):
    api.create_repo("me/x")
    assert raw("POST", "/api/repos/create", Content_Length="-5").status == 400
    assert raw("POST", "/api/repos/create", Content_Length="many").status == 400
    assert raw("POST", "/api/repos/create", Content_Length="9" * 5000).status == 400
    address = ("127.0.0.1", int(hub.endpoint.rsplit(":", 1)[1]))
    for text in (
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x00\xff\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/repos/create HTTP/1.1\r\n",
    ):
        with socket.create_connection(address, timeout=5) as connection:
            connection.sendall(text)
    # A client that goes away in the middle of its commit leaves nothing.
    with socket.create_connection(address, timeout=5) as connection:
        head = (
            f"POST /api/models/me/x/commit/main HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {hub.token}\r\n"
        )
        connection.sendall(
            head.encode() + b'Content-Length: 500\r\n\r\n{"key": "header", "value": {"summary": "m"}}\n'
        )
        connection.shutdown(socket.SHUT_WR)
        assert b" 400 " in connection.recv(1000)
    assert len(hub.commits("me/x")) == 1
