"""A family on its way to a hub: real commits, on loopback."""

import json
import shutil

import pytest
from huggingface_hub import HfApi, ModelCard, hf_hub_download

from hf_matryoshka.hub import repo_sync
from hf_matryoshka.hub.export import export_level
from hf_matryoshka.hub.export_family import export_family
from hf_matryoshka.hub.family import load_family
from hf_matryoshka.hub.manifest import MANIFEST_FILE
from hf_matryoshka.hub.push import push_family


IDS = ["me/tiny-d4", "me/tiny-d8", "me/tiny"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, base, make_adaptor):
    """A family on disk that no test changes."""
    return export_family(make_adaptor(), tmp_path_factory.mktemp("family"), base_model=base, levels=["d4", "d8"])


@pytest.fixture
def family(exported, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(exported.folder, tmp_path / "family")
    return load_family(tmp_path / "family")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(repo_sync, "FIRST_PAUSE", 0.001)


def commits(repo_id):
    return [commit.title for commit in HfApi().list_repo_commits(repo_id)]


def state():
    """Every repo with its last commit, and the items of the collections."""
    api = HfApi()
    repos = {model.id: model.sha for model in api.list_models(author="me")}
    found = [api.get_collection(one.slug) for one in api.list_collections(owner="me")]
    return repos, {one.title: [(item.item_id, item.note) for item in one.items] for one in found}


def test_one_commit_a_repo_and_a_collection(hub, exported):
    report = exported.push("me/tiny")
    assert report.repo_ids == IDS and len(report.commits) == 3
    for name, repo_id in zip(("d4", "d8", "full"), IDS, strict=True):
        assert commits(repo_id) == [f"Upload {name}", "initial commit"]
        folder = exported.repos[name].folder
        on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert set(HfApi().list_repo_files(repo_id)) - {".gitattributes"} == on_disk
    _, collections = state()
    assert collections == {
        "tiny": [
            ("me/tiny", "d4, d8, d32 (remote code)"),
            ("me/tiny-d4", "d4 (stock)"),
            ("me/tiny-d8", "d8 (stock)"),
        ]
    }


def test_a_second_push_makes_no_commit(hub, exported):
    exported.push("me/tiny")
    before = state()
    report = exported.push("me/tiny")
    assert report.commits == [] and all(repo.change.empty for repo in report.repos)
    assert state() == before


def test_card_and_manifest_name_the_repos_of_the_family(hub, exported):
    exported.push("me/tiny")
    card = ModelCard.load("me/tiny-d8").content
    assert 'SentenceTransformer("me/tiny-d8")' in card
    assert "sentence_transformers_model_id" not in card and "me/tiny-d4" in card
    manifest = json.loads(open(hf_hub_download("me/tiny-d8", MANIFEST_FILE)).read())
    assert [repo["location"] for repo in manifest["repos"]] == IDS


def test_the_family_is_read_from_the_hub_without_its_weights(hub, exported):
    exported.push("me/tiny")
    hub.requests.clear()
    found = load_family("me/tiny-d8")
    assert {name: repo.location for name, repo in found.repos.items()} == dict(
        zip(("d4", "d8", "full"), IDS, strict=True)
    )
    assert found.level("d8").cost["bytes_per_vector"] == 32
    assert not any("safetensors" in request.path for request in hub.requests)
    with pytest.raises(ValueError, match="me/tiny-d8 is on the Hub; push a family that lies in a folder"):
        found.push("me/other")


def test_only_what_changed_is_sent_and_what_went_is_deleted(hub, family):
    family.push("me/tiny")
    card = family.folder / "d4" / "README.md"
    card.write_text(card.read_text() + "\nMore.\n")
    (family.folder / "d8" / "extra.txt").write_text("x")
    family.push("me/tiny")
    assert commits("me/tiny-d4")[0] == "Upload d4" and len(commits("me/tiny-d4")) == 3
    assert len(commits("me/tiny")) == 2
    assert "extra.txt" in HfApi().list_repo_files("me/tiny-d8")
    (family.folder / "d8" / "extra.txt").unlink()
    (repo,) = [repo for repo in family.push("me/tiny").repos if not repo.change.empty]
    assert (repo.repo_id, repo.change.add, repo.change.delete) == ("me/tiny-d8", [], ["extra.txt"])
    assert "extra.txt" not in HfApi().list_repo_files("me/tiny-d8")


def test_a_level_that_is_gone_leaves_the_collection(hub, family, make_adaptor):
    slug = family.push("me/tiny").collection
    HfApi().create_repo("me/tiny-friend")
    HfApi().add_collection_item(slug, "me/tiny-friend", "model", note="not of the family")
    smaller = export_family(make_adaptor(), family.folder, levels=["d4"])
    smaller.push("me/tiny")
    repos, collections = state()
    assert sorted(item for item, _ in collections["tiny"]) == ["me/tiny", "me/tiny-d4", "me/tiny-friend"]
    assert "me/tiny-d8" in repos


def test_a_dry_run_changes_nothing(hub, exported):
    report = exported.push("me/tiny", dry_run=True)
    assert report.commits == [] and report.collection is None
    assert all(not repo.change.exists and "README.md" in repo.change.add for repo in report.repos)
    assert report.repos[0].change.num_bytes > 10_000
    assert state() == ({}, {})


def test_visibility(hub, exported):
    def private():
        (collection,) = HfApi().list_collections(owner="me")
        return {collection.private, *(HfApi().repo_info(repo_id).private for repo_id in IDS)}

    exported.push("me/tiny", private=True)
    assert private() == {True}
    exported.push("me/tiny")
    assert private() == {True}
    exported.push("me/tiny", private=False)
    assert private() == {False}


def test_the_account_completes_the_name(hub, exported):
    assert exported.push("tiny", collection=False).repo_ids == IDS
    assert state()[1] == {}


def test_a_push_goes_on_where_it_was_interrupted(hub, exported, monkeypatch):
    commit = repo_sync.commit_change

    def interrupted(api, change, *arguments):
        if change.repo_id == "me/tiny-d8":
            raise KeyboardInterrupt
        return commit(api, change, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(repo_sync, "commit_change", interrupted)
        with pytest.raises(KeyboardInterrupt):
            exported.push("me/tiny")
    done = state()[0]["me/tiny-d4"]
    report = exported.push("me/tiny")
    assert len(report.commits) == 2 and state()[0]["me/tiny-d4"] == done


def test_a_repo_of_something_else_is_not_replaced(hub, exported):
    HfApi().create_repo("me/tiny-d8")
    HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="thesis.tex", repo_id="me/tiny-d8")
    before = state()
    with pytest.raises(FileExistsError, match="me/tiny-d8 on the Hub holds files that are no Matryoshka export"):
        exported.push("me/tiny")
    assert state() == before
    exported.push("me/tiny", overwrite=True)
    assert "thesis.tex" not in HfApi().list_repo_files("me/tiny-d8")


def test_a_level_is_not_replaced_by_another_repo(hub, exported):
    exported.push("me/tiny")
    before = state()
    with pytest.raises(FileExistsError, match="me/tiny-d8 on the Hub is the repo d8 of a family, not full; choose"):
        exported.push("me/tiny-d8")
    with pytest.raises(FileExistsError, match="me/tiny-d8 on the Hub is the repo d8"):
        exported.push("me/tiny-d8", dry_run=True)
    assert state() == before
    HfApi().upload_file(path_or_fileobj=b"{", path_in_repo=MANIFEST_FILE, repo_id="me/tiny-d8")
    assert exported.push("me/tiny").repo_ids == IDS  # nobody knows what it was
    exported.push("me/tiny-d8", overwrite=True)
    assert load_family("me/tiny-d8").manifest.this == "full"


@pytest.mark.parametrize("name", ["me/a--b", "me/", "a/b/c", "me/x y", "me/.x", "me/" + "x" * 95])
def test_names_that_the_hub_refuses(hub, exported, name):
    with pytest.raises(ValueError, match="the push of .* is impossible: (Repo id must|Cannot have)"):
        exported.push(name)
    assert state() == ({}, {})


def test_tokens(hub, exported, monkeypatch):
    with pytest.raises(PermissionError, match="is not allowed to a read-only token"):
        exported.push("me/tiny", token=hub.read_token)
    with pytest.raises(PermissionError, match="the push of me/tiny needs a valid token; log in with `hf auth login`"):
        exported.push("me/tiny", token="hf_wrong")
    with pytest.raises(PermissionError, match="the push of you/tiny is not allowed to this token; it may write to me"):
        exported.push("you/tiny")
    for token in ("", "hf_secret\n", "hf_é"):
        with pytest.raises(PermissionError, match="needs a valid token; the one that was given is empty") as caught:
            exported.push("me/tiny", token=token)
        assert "secret" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PermissionError, match="the push of me/tiny needs a token; log in with `hf auth login`"):
        exported.push("me/tiny")
    assert state() == ({}, {})


def test_altered_weights_are_not_pushed(hub, family):
    weights = family.folder / "d8" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="model.safetensors in .*d8 is not what was exported"):
        family.push("me/tiny")
    assert state() == ({}, {})


def test_export_straight_to_the_hub(hub, base, make_adaptor, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MATRYOSHKA_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    family = export_family(make_adaptor(), "me/tiny", base_model=base, levels=["d4", "d8"])
    assert (family.source, [repo.location for repo in family.repos.values()]) == ("me/tiny", IDS)
    before = state()
    export_family(make_adaptor(), "me/tiny", base_model=base, levels=["d4", "d8"])
    assert state() == before


@pytest.mark.parametrize(
    "name, error, message",
    [
        ("me/a--b", ValueError, "Cannot have -- or .."),
        ("me/" + "x" * 94, ValueError, "x-d4' is impossible"),
        ("outputs/tiny", PermissionError, r"not allowed to this token; .* \(or write ./outputs/tiny for a folder\)"),
    ],
)
def test_export_to_a_name_that_cannot_be_pushed(hub, make_adaptor, tmp_path, monkeypatch, name, error, message):
    monkeypatch.setenv("HF_MATRYOSHKA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        export_family(make_adaptor(), name, levels=["d4"])
    assert not (tmp_path / "cache").exists()


def test_what_tools_leave_in_a_folder_is_not_pushed(hub, family):
    family.push("me/tiny")
    for name in (".git/config", ".cache/huggingface/x.lock", "__pycache__/x.pyc"):
        (family.folder / "d4" / name).parent.mkdir(parents=True)
        (family.folder / "d4" / name).write_text("x")
    assert family.push("me/tiny").commits == []


def test_what_the_hub_finds_too_large(hub, exported, monkeypatch):
    monkeypatch.setattr(hub, "max_upload_bytes", 2000)
    with pytest.raises(OSError, match="the push of me/tiny-d4 was refused.*the limit of this hub is 2000") as caught:
        exported.push("me/tiny")
    assert "\n" not in str(caught.value)


def test_one_exported_level_takes_the_name_itself(hub, make_adaptor, tmp_path):
    export_level(make_adaptor(), "d8", tmp_path / "d8")
    assert load_family(tmp_path / "d8").push("me/small").repo_ids == ["me/small"]
    assert load_family("me/small").repos["d8"].location == "me/small"


def test_no_family_on_the_hub(hub):
    HfApi().create_repo("me/bert")
    with pytest.raises(FileNotFoundError, match="me/bert is no repo of a Matryoshka family: it holds no"):
        load_family("me/bert")
    with pytest.raises(FileNotFoundError, match="there is no folder me/none, and no such repo on the Hub"):
        load_family("me/none")


@pytest.mark.parametrize("seed", range(6))
def test_a_push_through_a_bad_network(hub, exported, seed):
    from hf_matryoshka.hub.local import Faults

    hub.faults = Faults(drop=0.1, cut=0.1, delay=0.1, delay_seconds=0.001, seed=seed)
    try:
        push_family(exported, "me/tiny")
        failed = False
    except OSError as error:
        assert "did not go through" in str(error) and "\n" not in str(error)
        failed = True
    hub.faults = None
    # Whatever was said, no repo holds half of a level.
    for name, repo_id in zip(("d4", "d8", "full"), IDS, strict=True):
        if HfApi().repo_exists(repo_id):
            files = set(HfApi().list_repo_files(repo_id)) - {".gitattributes"}
            folder = exported.repos[name].folder
            whole = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            assert files == whole or (failed and not files)
            assert len(commits(repo_id)) <= 2
    assert exported.push("me/tiny").repo_ids == IDS
    assert exported.push("me/tiny").commits == []
