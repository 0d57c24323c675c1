"""A family of repos, and their way to the Hub."""

import os
from types import SimpleNamespace

import pytest

from hf_matryoshka.hub import family as family_module
from hf_matryoshka.hub.family import Family, export_family


class RecordingApi:
    """Stands in for `HfApi`."""

    def __init__(self):
        self.repos, self.commits, self.collection, self.items = {}, {}, None, []

    def create_repo(self, repo_id, private, exist_ok):
        repo_id = repo_id if "/" in repo_id else f"me/{repo_id}"
        self.repos[repo_id] = private
        return SimpleNamespace(repo_id=repo_id)

    def create_commit(self, repo_id, operations, commit_message):
        files = {}
        for operation in operations:
            with operation.as_file() as file:
                files[operation.path_in_repo] = file.read()
        self.commits.setdefault(repo_id, []).append(files)

    def create_collection(self, title, namespace, private, exists_ok):
        self.collection = (namespace, title, private)
        return SimpleNamespace(slug="slug")

    def add_collection_item(self, slug, item_id, item_type, note, exists_ok):
        self.items.append((slug, item_id, item_type, note))


@pytest.fixture(scope="module")
def family(tmp_path_factory, base, make_adaptor):
    return export_family(make_adaptor(), tmp_path_factory.mktemp("family"), base_model=base)


def test_one_folder_a_level_and_the_full_one(family):
    assert sorted(os.listdir(family.folder)) == ["d32", "d4", "d8", "full"]
    assert list(family.levels) == ["d4", "d8", "d32"]
    assert all(level.stock and level.matryoshka_dims == [level.dim] for level in family.levels.values())
    assert (family.full.stock, family.full.matryoshka_dims) == (False, [4, 8, 32])
    assert Family.from_folder(family.folder) == family


def test_some_levels(tmp_path, make_adaptor):
    family = export_family(make_adaptor(), tmp_path, levels=[0, "d8"])
    assert list(family.levels) == ["d4", "d8"]
    assert not any(level.stock for level in family.levels.values())
    assert family.full.matryoshka_dims == [4, 8, 32]


def test_nothing_is_written_if_one_folder_is_foreign(tmp_path, make_adaptor):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export_family(make_adaptor(), tmp_path)
    assert os.listdir(tmp_path) == ["full"]


def test_unknown_level(tmp_path, make_adaptor):
    with pytest.raises(ValueError, match="level 'd5' does not exist"):
        export_family(make_adaptor(), tmp_path / "out", levels=["d4", "d5"])
    assert not os.listdir(tmp_path)


def test_no_family(tmp_path):
    with pytest.raises(FileNotFoundError, match="full is no exported level"):
        Family.from_folder(tmp_path)


def test_push(family, monkeypatch):
    api = RecordingApi()
    monkeypatch.setattr(family_module, "HfApi", lambda: api)
    pushed = family.push("tiny", private=True)
    assert pushed == ["me/tiny", "me/tiny-d4", "me/tiny-d8", "me/tiny-d32"]
    assert api.repos == dict.fromkeys(pushed, True)
    assert all(len(commits) == 1 for commits in api.commits.values())
    files = api.commits["me/tiny"][0]
    on_disk = {path.relative_to(family.full.folder).as_posix() for path in family.full.folder.rglob("*.*")}
    assert set(files) == {name for name in on_disk if (family.full.folder / name).is_file()}
    assert "0_Transformer/model.safetensors" in files
    card = api.commits["me/tiny-d8"][0]["README.md"].decode()
    assert 'SentenceTransformer("me/tiny-d8")' in card
    assert "sentence_transformers_model_id" not in card
    assert api.collection == ("me", "tiny", True)
    assert api.items[0] == ("slug", "me/tiny", "model", "4, 8, 32 dimensions")
    assert api.items[2] == ("slug", "me/tiny-d8", "model", "8 dimensions")


def test_push_without_a_collection(family, monkeypatch):
    api = RecordingApi()
    monkeypatch.setattr(family_module, "HfApi", lambda: api)
    family.push("me/tiny", collection=False)
    assert api.collection is None and not api.items
