"""Branches and tags."""

import pytest
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError


def test_branches(api, hub, fill):
    first = fill("me/x", {"a.txt": b"1"})
    second = fill("me/x", {"a.txt": b"2"})
    api.create_branch("me/x", branch="dev/one")
    api.create_branch("me/x", branch="old", revision=first)
    api.create_branch("me/x", branch="old", exist_ok=True)
    third = fill("me/x", {"a.txt": b"3"}, revision="dev/one")
    fill("me/x", {"b.txt": b"b"}, revision="refs/heads/old")
    refs = {ref.ref: ref.target_commit for ref in api.list_repo_refs("me/x").branches}
    assert refs["refs/heads/main"] == second and refs["refs/heads/dev/one"] == third
    for revision, text in (("main", "2"), ("dev/one", "3"), ("refs/heads/dev/one", "3"), ("old", "1"), (first, "1")):
        with open(hf_hub_download("me/x", "a.txt", revision=revision)) as file:
            assert file.read() == text
    assert api.list_repo_commits("me/x", revision="old")[1].commit_id == first
    api.delete_branch("me/x", branch="dev/one")
    with pytest.raises(RevisionNotFoundError):
        api.delete_branch("me/x", branch="dev/one")
    with pytest.raises(HfHubHTTPError, match="default branch"):
        api.delete_branch("me/x", branch="main")


def test_tags(api, fill):
    first = fill("me/x", {"a.txt": b"1"})
    api.create_tag("me/x", tag="v1.0", tag_message="first")
    fill("me/x", {"a.txt": b"2"})
    assert (
        api.model_info("me/x", revision="v1.0").sha == first == api.model_info("me/x", revision="refs/tags/v1.0").sha
    )
    with pytest.raises(HfHubHTTPError, match="Reference already exists") as error:
        api.create_tag("me/x", tag="v1.0")
    assert error.value.response.status_code == 409
    api.create_tag("me/x", tag="v1.0", exist_ok=True)
    with pytest.raises(RevisionNotFoundError):
        fill("me/x", {"a.txt": b"3"}, revision="v1.0")  # no branch
    with pytest.raises(RevisionNotFoundError):
        api.create_tag("me/x", tag="v2", revision="nowhere")
    api.delete_tag("me/x", tag="v1.0")
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag("me/x", tag="v1.0")
    assert api.list_repo_refs("me/x").tags == []


NAMES = "../up a..b a%20b .hidden a.lock refs/heads/x HEAD -x a/ /a a//b a~1 a%5Cb a%00b @ a@%7Bb a%0Ab".split()


@pytest.mark.parametrize("name", [*NAMES, "0" * 40, "a" * 256])
def test_names_that_git_would_refuse(raw, api, name):
    from urllib.parse import unquote

    api.create_repo("me/x")
    assert raw("POST", f"/api/models/me/x/branch/{name.replace('/', '%2F')}", {}).status == 400
    assert raw("POST", "/api/models/me/x/tag/main", {"tag": unquote(name)}).status == 400
    refs = api.list_repo_refs("me/x")
    assert len(refs.branches) == 1 and refs.tags == []
