"""Fixtures of the local hub's own tests."""

import http.client
import json
from typing import NamedTuple

import pytest


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@pytest.fixture
def raw(hub):
    """Sends a request as it is, without any client's own checks: `raw("GET", "/path", body, token=None)`."""

    def send(method, path, body=None, token="write", **headers):
        address = hub.endpoint.removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=10)
        tokens = {"write": hub.token, "read": hub.read_token}
        if token:
            headers["Authorization"] = f"Bearer {tokens.get(token, token)}"
        if isinstance(body, dict):
            body = json.dumps(body)
        connection.putrequest(method, path, skip_host="Host" in headers)
        if body is not None:
            body = body.encode() if isinstance(body, str) else body
            headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer

    return send


@pytest.fixture
def api(hub):
    """`HfApi` with the write token."""
    from huggingface_hub import HfApi

    return HfApi()


@pytest.fixture
def fill(api):
    """Commits files to a repo, which it creates: `fill("me/x", {"a.txt": b"a"})`; returns the commit's id."""
    from huggingface_hub import CommitOperationAdd

    def commit(repo_id, files, repo_type="model", **options):
        api.create_repo(repo_id, repo_type=repo_type, exist_ok=True, private=options.pop("private", None))
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        options.setdefault("commit_message", "Add files")
        return api.create_commit(repo_id, operations, repo_type=repo_type, **options).oid

    return commit


@pytest.fixture
def no_waiting(monkeypatch):
    """huggingface_hub's pauses before it tries again take no time."""
    from types import SimpleNamespace

    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    for module in (file_download, _http):
        monkeypatch.setattr(module, "time", SimpleNamespace(**{**vars(module.time), "sleep": lambda seconds: None}))
