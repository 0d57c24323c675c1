"""Create, describe, list, change, move and delete repos."""

import pytest
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RepositoryNotFoundError


CARD = b"""---
tags: [matryoshka]
license: mit
library_name: transformers
base_model: me/base
date: 2026-01-02
---
Hi"""


def test_a_config_that_cannot_be_read_harms_nobody(api, fill):
    for content in (b"[" * 100_000, b"{"):
        fill("me/x", {"config.json": content})
        assert api.model_info("me/x").config in (None, {}) and [model.id for model in api.list_models()] == ["me/x"]


def test_a_new_repo_has_one_commit(api, hub):
    url = api.create_repo("x")
    assert (url.repo_id, url.repo_type, url.endpoint) == ("me/x", "model", hub.endpoint)
    assert list(hub.files("me/x")) == [".gitattributes"]
    assert [commit.title for commit in hub.commits("me/x")] == ["initial commit"]
    assert api.create_repo("me/x", exist_ok=True) == url
    with pytest.raises(HfHubHTTPError, match="You already created this model repo") as error:
        api.create_repo("me/x")
    assert error.value.response.status_code == 409


def test_the_three_types_are_apart(api, hub):
    api.create_repo("me/x")
    assert api.create_repo("me/x", repo_type="dataset").repo_type == "dataset"
    api.create_repo("me/x", repo_type="space", space_sdk="gradio")
    assert hub.repos() == ["me/x"] * 3 and hub.repos("dataset") == ["me/x"]
    api.delete_repo("me/x", repo_type="dataset")
    assert api.repo_exists("me/x") and not api.repo_exists("me/x", repo_type="dataset")
    assert api.space_info("me/x").sdk == "gradio"


def test_info_tells_what_the_files_say(api, fill):
    sha = fill("me/x", {"README.md": CARD, "config.json": b'{"model_type": "bert", "hidden_size": 4}'})
    info = api.model_info("me/x", files_metadata=True)
    assert (info.sha, info.author, info.private, info.library_name) == (sha, "me", False, "transformers")
    assert info.card_data.license == "mit" and info.config == {"model_type": "bert"}
    assert {"matryoshka", "license:mit", "base_model:me/base"} <= set(info.tags)
    assert {file.rfilename: file.size for file in info.siblings}["README.md"] == len(CARD)
    only = api.model_info("me/x", expand=["tags"])
    assert only.tags == info.tags and only.sha is None
    assert api.model_info("me/x", revision="main").sha == sha


def test_lists_are_filtered_and_come_in_pages(api, raw, fill):
    fill("me/old", {"README.md": CARD})
    for name in ("a", "b"):
        api.create_repo(f"me/{name}")
    assert {model.id for model in api.list_models(author="me")} == {"me/old", "me/a", "me/b"}
    assert [model.id for model in api.list_models(search="OLD")] == ["me/old"]
    assert [model.id for model in api.list_models(filter="matryoshka")] == ["me/old"]
    assert list(api.list_models(author="others")) == [] == list(api.list_datasets())
    assert [(repo.id, repo.type) for repo in api.list_user_repos()] == [
        (f"me/{name}", "model") for name in ("a", "b", "old")
    ]
    page = raw("GET", "/api/models?limit=2&author=me")
    assert len(page.json) == 2
    rest = page.headers["Link"].split(">")[0].split("/api")[1]
    last = raw("GET", f"/api{rest}")
    assert len(last.json) == 1 and "Link" not in last.headers
    assert raw("GET", "/api/models?limit=0").status == raw("GET", "/api/models?cursor=-1").status == 400


def test_move_and_delete(api, hub, fill):
    sha = fill("me/x", {"a.txt": b"a"})
    api.create_repo("me/taken")
    with pytest.raises(HfHubHTTPError, match="already exists"):
        api.move_repo("me/x", "me/taken")
    api.move_repo("me/x", "me/y")
    assert hub.repos() == ["me/taken", "me/y"] and hub.commits("me/y")[0].sha == sha
    api.delete_repo("me/y")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("me/y")
    api.delete_repo("me/y", missing_ok=True)
    assert hub.repos() == ["me/taken"]


def test_settings(api, raw):
    api.create_repo("me/x", private=True)
    assert api.model_info("me/x").private
    api.update_repo_settings("me/x", private=False, gated="auto")
    info = api.model_info("me/x", token=False)
    assert (info.private, info.gated) == (False, "auto")
    assert raw("PUT", "/api/models/me/x/settings", {"visibility": "protected"}).status == 400
    assert raw("PUT", "/api/models/me/x/settings", {"gated": "sometimes"}).status == 400
    api.auth_check("me/x", write=True)


@pytest.mark.parametrize("key", ["read", "others"])
def test_writing_elsewhere_is_refused(api, hub, key):
    token = {"read": hub.read_token, "others": hub.token}[key]
    name = {"read": "me/x", "others": "others/x"}[key]
    with pytest.raises(HfHubHTTPError, match="read-only" if key == "read" else 'namespace "others"') as error:
        api.create_repo(name, token=token)
    assert error.value.response.status_code == 403 and hub.repos() == []


NAMES = [
    "me/a--b",
    "me/a..b",
    "me/.a",
    "me/a-",
    "me/a.git",
    "me/" + "a" * 97,
    "me/a b",
    "me/ä",
    "a/b/c",
    "",
    "../x",
    None,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_the_hub_would_refuse(raw, hub, name):
    answer = raw("POST", "/api/repos/create", {"name": name, "type": "model"})
    assert answer.status == 400 and "Invalid repo id" in answer.json["error"]
    if name:
        namespace, _, last = name.partition("/")
        assert raw("POST", "/api/repos/create", {"name": last, "organization": namespace}).status == 400
    assert hub.repos() == []


def test_other_bad_requests(raw, hub):
    create = "/api/repos/create"
    for body in (b"no json", b"[]", b"{" * 100_000, {"name": "x", "type": "kernel"}, {"name": "x", "type": "space"}):
        assert raw("POST", create, body).status == 400
    assert raw("POST", create, {"name": "x", "visibility": "secret"}).status == 400
    assert raw("POST", create, {"organization": "me"}).status == 400
    assert hub.repos() == []


def test_metadata_of_cards_is_checked(api, raw, fill):
    def validate(card):
        return raw("POST", "/api/validate-yaml", {"content": card, "repoType": "model"}, token=None)

    assert validate(CARD.decode()).json == {"errors": [], "warnings": []}
    assert validate("# No metadata").json["warnings"] and validate("---\n---\n").json["warnings"]
    bad = ["a: [", "- a", "tags: matryoshka", "license: {a: 1}", "base_model: ../up", "model-index: {}"]
    for metadata in bad:
        answer = validate(f"---\n{metadata}\n---\n")
        assert answer.status == 400 and len(answer.json["errors"]) == 1, metadata
    index = 'model-index: [{name: "a", results: [{metrics: []}]}]'
    assert validate(f"---\n{index}\ntags:\n---\n").status == 200
    with pytest.raises(ValueError, match="Invalid metadata in README.md"):
        fill("me/x", {"README.md": b"---\ntags: 3\n---\n"})
    line = '{"key": "file", "value": {"path": "README.md", "content": "---\\na: [\\n---\\n"}}'
    body = '{"key": "header", "value": {"summary": "m"}}\n' + line
    assert raw("POST", "/api/models/me/x/commit/main", body).status == 400


def test_there_are_no_pull_requests(api):
    api.create_repo("me/x")
    with pytest.raises(BadRequestError, match="no pull requests"):
        api.create_pull_request("me/x", title="t")
