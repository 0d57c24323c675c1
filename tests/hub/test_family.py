"""A family of repos in a folder."""

import os
from dataclasses import replace

import pytest
from sentence_transformers import SentenceTransformer

from hf_matryoshka.evaluation.curve import Curve, LevelPoint
from hf_matryoshka.hub import export
from hf_matryoshka.hub.cards import CardDetails
from hf_matryoshka.hub.export import export_level
from hf_matryoshka.hub.export_family import export_family
from hf_matryoshka.hub.family import load_family, select_level
from hf_matryoshka.hub.gate import ExportError
from hf_matryoshka.hub.manifest import MANIFEST_FILE, Manifest, weight_hashes


def curve(split="test", values=(0.5, 0.6, 0.61)):
    points = [
        LevelPoint(f"d{dim}", dim, value, value - 0.1, value + 0.1, {"latency_ms": dim / 10})
        for dim, value in zip((4, 8, 32), values, strict=True)
    ]
    return Curve(points, "ndcg_at_10", split, "ours")


@pytest.fixture(scope="module")
def family(tmp_path_factory, base, make_adaptor):
    card = CardDetails(curves=[curve(), curve("test_unseen", (0.1, 0.2, 0.4))])
    return export_family(make_adaptor(), tmp_path_factory.mktemp("family"), base_model=base, card=card)


def test_one_folder_a_level_and_the_full_one(family):
    assert sorted(os.listdir(family.folder)) == ["d32", "d4", "d8", "full"]
    assert list(family.levels) == ["d4", "d8", "d32"]
    assert list(family.repos) == ["d4", "d8", "d32", "full"]
    assert all(repo.stock and repo.levels == [name] for name, repo in family.levels.items())
    assert (family.full.stock, family.full.levels) == (False, ["d4", "d8", "d32"])


def test_every_repo_knows_the_whole_family(family):
    manifests = {name: Manifest.from_folder(repo.folder) for name, repo in family.repos.items()}
    assert {name: found.this for name, found in manifests.items()} == {name: name for name in family.repos}
    assert len({replace(found, this="x").to_text() for found in manifests.values()}) == 1
    for name, repo in family.repos.items():
        assert repo.files == weight_hashes(repo.folder)
        assert manifests["d4"].repo_of(name).location == f"../{name}"


def test_it_loads_from_its_folder_and_from_any_repo(family, monkeypatch):
    assert load_family(family.folder) == family
    monkeypatch.chdir(family.folder)
    for name in family.repos:
        found = load_family(name)
        assert found.manifest.this == name
        assert [repo.folder.resolve() for repo in found.repos.values()] == [
            repo.folder.resolve() for repo in family.repos.values()
        ]
        found.verify()


def test_selection_reads_no_weights(family, tmp_path):
    (tmp_path / MANIFEST_FILE).write_text((family.folder / "d8" / MANIFEST_FILE).read_text())
    found = load_family(tmp_path)
    assert found.select(min_quality=0.95) == "d8"
    assert found.select(min_quality=0.95, split="test_unseen") == "d32"
    assert found.select(max_latency_ms=0.5) == "d4"
    assert found.select(max_memory_mb=0.02, num_vectors=1000) == "d4"
    assert select_level(tmp_path, min_quality=0.95) == "d8"
    assert found.level("d8").cost["bytes_per_vector"] == 32
    with pytest.raises(ValueError, match="has no measured accuracy; measured: ndcg_at_10 on test, ndcg_at_10 on"):
        found.select(min_quality=0.9, metric="accuracy")
    with pytest.raises(FileNotFoundError, match="the repo d4 of .* is not at"):
        found.verify()


def test_some_levels(tmp_path, make_adaptor):
    family = export_family(make_adaptor(), tmp_path, levels=[0, "d8"])
    assert list(family.levels) == ["d4", "d8"]
    assert not any(repo.stock for repo in family.levels.values())
    assert family.full.levels == ["d4", "d8", "d32"]
    assert [level.name for level in family.manifest.levels] == ["d4", "d8", "d32"]


def test_levels_in_any_order_are_written_once_and_listed_from_the_smallest(tmp_path, make_adaptor):
    family = export_family(make_adaptor(), tmp_path, levels=["d8", 0, "d4", 1])
    assert list(family.repos) == ["d4", "d8", "full"]


def test_a_repo_of_another_export_is_named(tmp_path, make_adaptor):
    family = export_family(make_adaptor(), tmp_path, levels=["d4", "d8"])
    # The same weights, but it says that it is alone.
    export.export_level(make_adaptor(), "d8", tmp_path / "d8")
    with pytest.raises(ValueError, match="d8 and .*full come from different exports, as their matryoshka.json say"):
        family.verify()


def test_links_and_renamed_folders(tmp_path, make_adaptor):
    family = export_family(make_adaptor(), tmp_path / "family", levels=["d4"])
    (tmp_path / "link").symlink_to(family.folder / "d4")
    load_family(tmp_path / "link").verify()
    (family.folder / "d4").rename(family.folder / "small")
    assert load_family(family.folder / "small").repos["d4"].folder == family.folder / "small"
    with pytest.raises(FileNotFoundError, match="the repo d4 of .* is not at"):
        load_family(family.folder).verify()


def test_an_earlier_family_is_replaced_as_a_whole(tmp_path, make_adaptor):
    export_family(make_adaptor(), tmp_path)
    (tmp_path / "notes").mkdir()
    export_level(make_adaptor(), "d8", tmp_path / "mine")
    family = export_family(make_adaptor(), tmp_path, levels=["d8"])
    assert sorted(os.listdir(tmp_path)) == ["d8", "full", "mine", "notes"]
    family.verify()


def test_altered_weights_are_named(tmp_path, make_adaptor):
    family = export_family(make_adaptor(), tmp_path, levels=["d4"])
    weights = tmp_path / "d4" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="model.safetensors in .*d4 is not what was exported: its sha256 is"):
        family.verify()


def test_nothing_is_written_if_one_folder_is_foreign(tmp_path, make_adaptor):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export_family(make_adaptor(), tmp_path)
    assert os.listdir(tmp_path) == ["full"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ExportError])
def test_an_interrupted_export_leaves_the_earlier_family(tmp_path, make_adaptor, monkeypatch, error):
    model = make_adaptor()
    before = export_family(model, tmp_path, levels=["d4"])
    check = export.check_export

    def fail_at_the_second(exporter, form, folder):
        if exporter.name == "full":
            raise error("stop")
        return check(exporter, form, folder)

    monkeypatch.setattr(export, "check_export", fail_at_the_second)
    with pytest.raises(error):
        export_family(make_adaptor(intermediate_size=5), tmp_path, levels=["d4", "d8"])
    assert sorted(os.listdir(tmp_path)) == ["d4", "full"]
    assert load_family(tmp_path) == before
    before.verify()


def test_a_family_may_need_a_tiny_share_of_its_repos(family):
    small = family.levels[family.select(min_quality=0.9)]
    model = SentenceTransformer(small.location, device="cpu", local_files_only=True)
    assert model.encode(["a cat"]).shape == (1, family.level(small.name).dim)


def test_unknown_level(tmp_path, make_adaptor):
    with pytest.raises(ValueError, match="level 'd5' does not exist"):
        export_family(make_adaptor(), tmp_path / "out", levels=["d4", "d5"])
    assert not os.listdir(tmp_path)


def test_no_family(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no repo of a Matryoshka family: it holds no matryoshka.json"):
        load_family(tmp_path)
    with pytest.raises(FileNotFoundError, match="is neither a folder nor a Hub id"):
        load_family("no/such/family")
