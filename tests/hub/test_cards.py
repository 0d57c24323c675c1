"""Model cards."""

import pytest
from huggingface_hub import ModelCard

from hf_matryoshka.evaluation.curve import Curve, LevelPoint
from hf_matryoshka.hub.cards import CardDetails, adaptor_card, quality_tables
from hf_matryoshka.hub.export import export_level


def curve(system, split="test", start=0.5, interval=True, baselines=None):
    points = [
        LevelPoint(f"d{dim}", dim, start + dim / 100, *((start, start + 0.4) if interval else ()))
        for dim in (4, 8, 32)
    ]
    return Curve(points, "ndcg_at_10", split, system, baselines or {})


def card(make_adaptor, level="d8", stock=False, with_base=True, kind="mlp", **details):
    return adaptor_card(
        make_adaptor(kind),
        level,
        stock=stock,
        with_base=with_base,
        max_difference=1.23e-7,
        details=CardDetails(**details),
    )


def test_metadata(make_adaptor):
    data = card(make_adaptor, base_model="me/base", license="mit", tags=["mine"]).data
    assert (data.base_model, data.base_model_relation, data.license) == ("me/base", "finetune", "mit")
    assert (data.library_name, data.pipeline_tag) == ("sentence-transformers", "sentence-similarity")
    assert {"matryoshka", "sentence-transformers", "mine"} <= set(data.tags)
    data = card(make_adaptor, with_base=False, base_model="me/base").data
    assert (data.base_model_relation, data.library_name) == ("adapter", "transformers")
    data = card(make_adaptor, with_base=False).data.to_dict()
    assert not {"base_model", "base_model_relation", "license"} & set(data)


def test_usage_fits_the_repo(make_adaptor):
    stock = card(make_adaptor, stock=True).text
    assert 'SentenceTransformer("sentence_transformers_model_id")' in stock
    assert "AutoModel" not in stock and "matryoshka_dim=" not in stock and "**8 dimensions**" in stock
    remote = card(make_adaptor).text
    assert 'SentenceTransformer("sentence_transformers_model_id", trust_remote_code=True)' in remote
    assert "AutoModel.from_pretrained(" in remote and "**4, 8**" in remote and "matryoshka_dim=4" in remote
    black_box = card(make_adaptor, level=None, with_base=False).text
    assert "SentenceTransformer(" not in black_box and "**4, 8, 32**" in black_box


def test_levels_and_exactness(make_adaptor):
    text = card(make_adaptor).text
    cost = make_adaptor().cost("d4")
    assert f"| d4 | 4 | 16 | {cost['parameters']:,} | {cost['macs']:,} |" in text
    assert "was 1.2e-07." in text


def test_quality_tables_have_one_column_a_system(make_adaptor):
    curves = [
        curve("ours", baselines={"truncation": curve("truncation", start=0.1, interval=False)}),
        curve("ours", split="test_unseen", interval=False),
    ]
    text = card(make_adaptor, curves=curves).text
    assert "`ndcg_at_10`, split `test`, with 95% intervals:\n\n| level | ours | truncation |\n|---|---|---|\n" in text
    assert "| d4 | 0.540 [0.500, 0.900] | 0.140 |\n| **d8** | **0.580 [0.500, 0.900]** | **0.180** |\n" in text
    assert "split `test_unseen`:\n\n| level | ours |\n" in text
    assert "## Quality" not in card(make_adaptor).text


def test_a_level_that_one_system_lacks_leaves_its_cell_empty():
    partial = Curve([LevelPoint("d4", 4, 0.3)], "ndcg_at_10", "test", "int8")
    (table,) = quality_tables([curve("ours", interval=False), partial])
    assert table["rows"] == [["d4", "0.540", "0.300"], ["d8", "0.580", ""], ["d32", "0.820", ""]]
    assert not table["intervals"]


@pytest.mark.parametrize(
    "known, shown", [("me/base", "me/base"), ("/some/where/base", None), ("/base", None), (None, None)]
)
def test_exported_card(tmp_path, make_adaptor, known, shown):
    (tmp_path / "plot.png").write_bytes(b"png")
    model = make_adaptor(base_model=known)
    export_level(model, "d8", tmp_path / "out", plot=tmp_path / "plot.png", license="mit")
    loaded = ModelCard.load(tmp_path / "out" / "README.md")
    assert (loaded.data.base_model, loaded.data.license) == (shown, "mit")
    assert "![Quality against dimensions](curve.png)" in loaded.text
    assert (tmp_path / "out" / "curve.png").read_bytes() == b"png"


def test_a_base_model_in_a_folder_is_not_named(tmp_path, make_adaptor, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "base").mkdir(parents=True)
    export_level(make_adaptor(base_model="models/base"), "d8", "out")
    assert ModelCard.load("out/README.md").data.base_model is None
    export_level(make_adaptor(base_model="models/base"), "d8", "out", base_model_id="me/base")
    assert ModelCard.load("out/README.md").data.base_model == "me/base"
