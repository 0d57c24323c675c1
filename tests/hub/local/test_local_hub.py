"""The hub as an object: start, stop, restart, what it keeps and what it needs."""

import errno
import http.client
import json
import os
import stat
import subprocess
import sys
import threading

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from hf_matryoshka.hub import LocalHub
from hf_matryoshka.hub.local import local_hub


FORBIDDEN = ["torch", "transformers", "huggingface_hub", "numpy", "hf_matryoshka.modeling"]


def test_it_imports_no_library_but_yaml():
    code = (
        "import sys; from hf_matryoshka.hub import LocalHub\n"
        f"with LocalHub(): print([name for name in {FORBIDDEN} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_only_loopback():
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.com", ""):
        with pytest.raises(ValueError, match="this machine only"):
            LocalHub(host=host)
    with LocalHub() as hub:
        assert hub.endpoint.startswith("http://127.0.0.1:")
        assert hub._server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "options",
    [{"port": -1}, {"port": 65536}, {"max_upload_bytes": 0}, {"user": "a/b"}, {"user": "a--b"}, {"orgs": ("",)}]
    + [{"token": ""}, {"token": "ä"}, {"token": " a"}, {"token": "a\nb"}],
)
def test_bad_options(options):
    with pytest.raises(ValueError):
        LocalHub(**options)


def test_a_restarted_hub_serves_the_same(hub, monkeypatch, tmp_path):
    folder = tmp_path / "hub"
    with LocalHub(folder, orgs=("org",)) as first:
        api = HfApi(first.endpoint, first.token)
        api.create_repo("org/x", private=True)
        api.create_commit("org/x", [CommitOperationAdd("a.bin", b"a" * 100)], commit_message="m")
        api.create_tag("org/x", tag="v1")
        slug = api.create_collection("Family").slug
        api.add_collection_item(slug, "org/x", "model", note="n")
        info, tokens = api.model_info("org/x"), (first.token, first.read_token)
    assert stat.S_IMODE(os.stat(folder / "tokens.json").st_mode) == 0o600
    with LocalHub(folder, orgs=("org",)) as second:
        api = HfApi(second.endpoint, second.token)
        assert (second.token, second.read_token) == tokens
        assert api.model_info("org/x", revision="v1").sha == info.sha and api.model_info("org/x").private
        assert second.files("org/x")["a.bin"] == b"a" * 100
        assert [item.note for item in api.get_collection(slug).items] == ["n"]
    with LocalHub(folder, token="mine") as third:
        assert (third.token, third.read_token) == ("mine", tokens[1])


def test_the_repos_of_a_former_user_can_only_be_read(hub, tmp_path):
    with LocalHub(tmp_path) as first:
        api = HfApi(first.endpoint, first.token)
        api.create_repo("me/x")
        slug = api.create_collection("Family").slug
    with LocalHub(tmp_path, user="you") as second:
        api = HfApi(second.endpoint, second.token)
        assert api.list_repo_files("me/x") == [".gitattributes"] and api.get_collection(slug).title == "Family"
        for change in (
            lambda: api.create_commit("me/x", [CommitOperationAdd("a.txt", b"a")], commit_message="m"),
            lambda: api.create_tag("me/x", tag="v1"),
            lambda: api.update_repo_settings("me/x", private=True),
            lambda: api.update_collection_metadata(slug, title="Mine"),
            lambda: api.delete_collection(slug),
        ):
            with pytest.raises(HfHubHTTPError, match="rights to write under the namespace .me.; yours: you"):
                change()


def test_a_temporary_folder_goes_with_the_hub():
    hub = LocalHub().start()
    folder = hub.folder
    assert folder.is_dir()
    hub.stop()
    hub.stop()
    assert not folder.exists()
    with pytest.raises(RuntimeError, match="not running"):
        _ = hub.endpoint


def test_a_taken_port_is_said_before_anything_is_written(tmp_path):
    with LocalHub() as hub:
        port = int(hub.endpoint.rsplit(":", 1)[1])
        with pytest.raises(OSError, match=f"port {port} cannot be used"):
            LocalHub(tmp_path / "other", port=port).start()
    assert not (tmp_path / "other").exists()
    with LocalHub(port=port) as hub:
        assert hub.endpoint.endswith(f":{port}")


def test_a_folder_is_served_once(tmp_path):
    with LocalHub(tmp_path) as hub:
        token = hub.token
        with pytest.raises(OSError, match=f"another local hub serves {tmp_path}"):
            LocalHub(tmp_path, token="other").start()
    with LocalHub(tmp_path) as hub:
        assert hub.token == token


def test_stopping_ends_kept_connections():
    hub = LocalHub().start()
    connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"), timeout=5)
    for _ in range(2):
        connection.request("GET", "/api/models")
        assert connection.getresponse().read() == b"[]"
    hub.stop()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        connection.request("GET", "/api/models")
        connection.sock.settimeout(5)
        connection.getresponse()


def test_environment_says_how_to_reach_it(monkeypatch):
    with LocalHub() as hub:
        monkeypatch.setattr(os, "environ", {})
        assert hub.environment() == {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1"}
        monkeypatch.setattr(os, "environ", {"HTTP_PROXY": "http://proxy.example", "NO_PROXY": "intranet"})
        assert hub.environment()["NO_PROXY"] == "intranet,127.0.0.1,localhost"


def test_the_log_keeps_the_last_requests(monkeypatch):
    """A hub may serve for days."""
    monkeypatch.setattr(local_hub, "LOG_SIZE", 3)
    with LocalHub() as hub:
        for number in range(5):
            connection = http.client.HTTPConnection("127.0.0.1", int(hub.endpoint.rsplit(":", 1)[1]))
            connection.request("GET", f"/api/models/me/{number}")
            connection.getresponse().read()
            connection.close()
        assert [request.path[-1] for request in hub.requests] == ["2", "3", "4"]


def test_reset_forgets_all_but_the_tokens(hub, raw, fill):
    fill("me/x", {"a.bin": b"a"})
    token, endpoint = hub.token, hub.endpoint
    hub.reset()
    assert hub.repos() == [] and not hub.requests and hub.faults is None
    assert (hub.token, hub.endpoint) == (token, endpoint)
    assert raw("GET", "/api/models/me/x").status == 404
    with pytest.raises(KeyError, match="no model me/x"):
        hub.commits("me/x")


def test_a_full_disk_leaves_nothing_half_written(hub, raw, api, monkeypatch):
    api.create_repo("me/x")
    before = sorted(hub.folder.rglob("*"))

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    line = {"key": "file", "value": {"path": "a.txt", "content": "a"}}
    body = "\n".join(json.dumps(part) for part in ({"key": "header", "value": {"summary": "m"}}, line))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        for method, path, sent in (
            ("POST", "/api/models/me/x/commit/main", body),
            ("POST", "/api/models/me/x/branch/a", {}),
        ):
            answer = raw(method, path, sent)
            assert answer.status == 507 and "disk" in answer.json["error"]
    assert [path for path in sorted(hub.folder.rglob("*")) if path.is_file()] == [
        path for path in before if path.is_file()
    ]
    assert len(hub.commits("me/x")) == 1
    assert raw("POST", "/api/models/me/x/commit/main", body).status == 200


def test_concurrent_commits_all_happen(hub, raw, api):
    api.create_repo("me/x")

    def commit(number):
        line = {"key": "file", "value": {"path": f"{number}.txt", "content": str(number)}}
        header = {"key": "header", "value": {"summary": "m"}}
        assert raw("POST", "/api/models/me/x/commit/main", f"{json.dumps(header)}\n{json.dumps(line)}").status == 200

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hub.commits("me/x")) == 13
    assert {f"{number}.txt": str(number).encode() for number in range(12)}.items() <= hub.files("me/x").items()
