"""Levels of a repo in shards by level: what the hub serves for each, and what comes of it."""

import json

import pytest
import torch
from huggingface_hub import HfApi, constants
from transformers import AutoModel

from hf_matryoshka import MatryoshkaAdaptorModel
from hf_matryoshka.hub.local import Faults
from hf_matryoshka.modeling import level_checkpoints


REPO = "me/demo"
INDEX = "model.safetensors.index.json"
SHARDS = ["model-d4.safetensors", "model-d8.safetensors", "model-d32.safetensors"]


def served(hub):
    """Bytes of each weight file that were sent since the last look."""
    sent = {name: hub.bytes_served(REPO, name) for name in [*SHARDS, "model.safetensors"]}
    hub.requests.clear()
    return {name: count for name, count in sent.items() if count}


def sizes(hub, *names):
    files = hub.files(REPO)
    return {name: len(files[name]) for name in names}


def same(actual, expected):
    states = actual.state_dict(), expected.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][n], v) for n, v in states[1].items())


@pytest.fixture
def model(make_adaptor):
    return make_adaptor("mlp", projection=True)


def test_each_level_fetches_only_what_it_adds(hub, model):
    model.push_to_hub(REPO, shard_by_level=True)
    served(hub)
    assert same(MatryoshkaAdaptorModel.from_pretrained(REPO, level="d4"), model.cut("d4"))
    assert served(hub) == sizes(hub, "model-d4.safetensors")
    # Upgrades, also through the AutoClass and to the whole model.
    assert same(AutoModel.from_pretrained(REPO, level="d8"), model.cut("d8"))
    assert served(hub) == sizes(hub, "model-d8.safetensors")
    assert same(MatryoshkaAdaptorModel.from_pretrained(REPO), model)
    assert served(hub) == sizes(hub, "model-d32.safetensors")
    for level in ("d4", "d8", "d32", None):
        assert same(AutoModel.from_pretrained(REPO, level=level), model.cut(level))
    assert served(hub) == {}
    MatryoshkaAdaptorModel.from_pretrained(REPO, level="d4", force_download=True)
    assert served(hub) == sizes(hub, "model-d4.safetensors")
    # All values once: the sum of the shards is the whole model, but for their headers.
    assert sum(sizes(hub, *SHARDS).values()) < 4 * model.num_parameters() + 4000


def test_a_pinned_revision_and_the_newest_one(hub, model, make_adaptor):
    other = make_adaptor("linear")
    first = model.push_to_hub(REPO, shard_by_level=True).oid
    other.push_to_hub(REPO, shard_by_level=True, commit_message="Another kind", revision="other")
    HfApi().create_tag(REPO, tag="v1", revision=first)
    other.push_to_hub(REPO, shard_by_level=True)
    for revision, expected in ((first, model), ("v1", model), ("other", other), (None, other)):
        assert same(MatryoshkaAdaptorModel.from_pretrained(REPO, level="d8", revision=revision), expected.cut("d8"))
    assert [commit.title for commit in HfApi().list_repo_commits(REPO, revision="other")][0] == "Another kind"


def test_a_push_between_two_requests_mixes_nothing(hub, model, make_adaptor, monkeypatch):
    fetch, others = level_checkpoints.fetch_level_shards, [make_adaptor("mlp", projection=True, intermediate_size=16)]

    def push_then_fetch(*args, **kwargs):
        others.pop().push_to_hub(REPO, shard_by_level=True)
        return fetch(*args, **kwargs)

    model.push_to_hub(REPO, shard_by_level=True)
    monkeypatch.setattr(level_checkpoints, "fetch_level_shards", push_then_fetch)
    assert same(MatryoshkaAdaptorModel.from_pretrained(REPO, level="d8"), model.cut("d8"))
    assert not others


def test_a_flaky_hub_never_gives_a_wrong_model(hub, model, tmp_path):
    model.push_to_hub(REPO, shard_by_level=True)
    expected, outcomes = model.cut("d8"), []
    for seed in range(3):
        hub.faults = Faults(drop=0.1, cut=0.1, seed=seed)
        try:
            loaded = MatryoshkaAdaptorModel.from_pretrained(REPO, level="d8", cache_dir=tmp_path / f"cache{seed}")
        except Exception as error:
            assert str(error)
            outcomes.append(False)
        else:
            assert same(loaded, expected)
            outcomes.append(True)
    assert any(outcomes)


def test_offline_from_the_cache(hub, model, monkeypatch):
    model.push_to_hub(REPO, shard_by_level=True)
    MatryoshkaAdaptorModel.from_pretrained(REPO, level="d8")
    hub.requests.clear()
    for level in ("d4", "d8"):
        loaded = MatryoshkaAdaptorModel.from_pretrained(REPO, level=level, local_files_only=True)
        assert same(loaded, model.cut(level))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(AutoModel.from_pretrained(REPO, level="d4"), model.cut("d4"))
    message = (
        "^model-d32.safetensors of me/demo, which its level d32 needs, is not in the cache and the Hub may not be"
    )
    with pytest.raises(FileNotFoundError, match=message):
        MatryoshkaAdaptorModel.from_pretrained(REPO)
    assert not hub.requests


def test_repos_that_are_not_sharded_by_level(hub, model):
    model.push_to_hub(REPO)
    served(hub)
    assert same(MatryoshkaAdaptorModel.from_pretrained(REPO, level="d4"), model.cut("d4"))
    assert served(hub) == sizes(hub, "model.safetensors")
    with pytest.raises(OSError, match="me/absent is not a local folder and is not a valid model identifier"):
        MatryoshkaAdaptorModel.from_pretrained("me/absent", level="d4")


def test_a_push_in_another_layout_replaces_the_weights(hub, model, make_adaptor):
    other = make_adaptor("linear")
    model.push_to_hub(REPO)
    other.push_to_hub(REPO, shard_by_level=True)
    names = {name for name in hub.files(REPO) if name.endswith((".safetensors", INDEX))}
    assert names == {*SHARDS, INDEX}
    assert len(hub.commits(REPO)) == 3
    assert same(MatryoshkaAdaptorModel.from_pretrained(REPO), other)
    # Fewer levels: the shards of the others go.
    other.cut("d8").push_to_hub(REPO, shard_by_level=True)
    names = {name for name in hub.files(REPO) if name.endswith((".safetensors", INDEX))}
    assert names == {*SHARDS[:2], INDEX}
    # The ordinary push of transformers deletes nothing, but what it pushed is what counts.
    model.push_to_hub(REPO)
    assert same(MatryoshkaAdaptorModel.from_pretrained(REPO), model)
    assert same(MatryoshkaAdaptorModel.from_pretrained(REPO, level="d4"), model.cut("d4"))


def test_save_and_push_in_one_call(hub, model, tmp_path):
    model.save_pretrained(tmp_path / "demo", shard_by_level=True, push_to_hub=True, private=True, repo_id=REPO)
    files = hub.files(REPO)
    assert {*SHARDS, INDEX, "README.md", "modeling_matryoshka_adaptor.py"} <= set(files)
    assert files[INDEX] == (tmp_path / "demo" / INDEX).read_bytes()
    assert HfApi().model_info(REPO).private


def test_a_subfolder(hub, model, tmp_path):
    model.save_pretrained(tmp_path / "repo" / "inner", shard_by_level=True)
    HfApi().create_repo(REPO)
    HfApi().upload_folder(repo_id=REPO, folder_path=tmp_path / "repo")
    hub.requests.clear()
    loaded = MatryoshkaAdaptorModel.from_pretrained(REPO, subfolder="inner", level="d4")
    assert same(loaded, model.cut("d4"))
    assert hub.bytes_served(REPO, "inner/model-d8.safetensors") == 0
    assert hub.bytes_served(REPO, "inner/model-d4.safetensors") > 0


def test_a_tampered_shard_is_named_and_a_new_download_mends_it(hub, model):
    model.push_to_hub(REPO, shard_by_level=True)
    content = hub.files(REPO)["model-d8.safetensors"]
    HfApi().upload_file(
        repo_id=REPO, path_in_repo="model-d8.safetensors", path_or_fileobj=content[:-1] + bytes([content[-1] ^ 1])
    )
    assert same(MatryoshkaAdaptorModel.from_pretrained(REPO, level="d4"), model.cut("d4"))
    message = "^model-d8.safetensors of me/demo is not the file that its index describes .* with force_download=True$"
    with pytest.raises(OSError, match=message):
        MatryoshkaAdaptorModel.from_pretrained(REPO, level="d8")
    model.push_to_hub(REPO, shard_by_level=True)
    assert same(MatryoshkaAdaptorModel.from_pretrained(REPO, level="d8"), model.cut("d8"))


def test_a_hub_that_fails_is_not_a_repo_without_an_index(hub, model):
    model.push_to_hub(REPO, shard_by_level=True)
    MatryoshkaAdaptorModel.from_pretrained(REPO, level="d4")
    hub.faults = Faults(drop=1.0)
    with pytest.raises(OSError, match="^model-d8.safetensors of me/demo could not be fetched: [^\n]*$"):
        MatryoshkaAdaptorModel.from_pretrained(REPO, level="d8")


def test_a_card_that_was_there_stays(hub, model):
    model.push_to_hub(REPO)
    HfApi().upload_file(repo_id=REPO, path_in_repo="README.md", path_or_fileobj=b"---\ntags:\n- mine\n---\n# Mine\n")
    model.push_to_hub(REPO, shard_by_level=True, tags=["more"])
    card = hub.files(REPO)["README.md"].decode()
    assert "# Mine" in card and "- mine" in card and "- more" in card
    index = json.loads(hub.files(REPO)[INDEX])
    assert list(index["level_shards"]["levels"]) == ["d4", "d8", "d32"]
