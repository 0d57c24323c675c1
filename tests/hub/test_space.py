"""A folder that Hugging Face would run as a Space: what is in it, what is refused, and its push."""

import ast
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi, SpaceCard
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer

from hf_matryoshka import CardDetails, export_family, export_level, mamba_sentence_encoder, nest_sentence_encoder
from hf_matryoshka.data.character_tokenizer import character_tokenizer
from hf_matryoshka.evaluation.curve import Curve, LevelPoint
from hf_matryoshka.hub.space import build_space

from ..modeling import gpt_models, mamba_models


TEXTS = [
    f"the {animal} of the {place}" for animal in ("cat", "dog", "bird", "fish") for place in ("river", "city", "cell")
]
POINTS = [LevelPoint("d4", 4, 0.4, 0.3, 0.5), LevelPoint("d8", 8, 0.45), LevelPoint("d32", 32, 0.5, 0.4, 0.6)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text, "title": text[:9]}) + "\n" for text in TEXTS))
    return path


@pytest.fixture(scope="module")
def family(tmp_path_factory, make_adaptor, base):
    folder = tmp_path_factory.mktemp("adaptor")
    card = CardDetails(license="mit", curves=[Curve(POINTS, "ndcg_at_10", "test", "ours")])
    export_family(make_adaptor(), folder, base_model=base, levels=["d32"], card=card)
    return folder


@pytest.fixture(scope="module")
def delta(tmp_path_factory, base):
    encoder = nest_sentence_encoder(base, [[0.25, 2, 1], [1.0, 2, 2]], [8, 32])
    return export_level(encoder, "full", tmp_path_factory.mktemp("delta") / "full").folder


@pytest.fixture(scope="module")
def mamba(tmp_path_factory, tiny_sentence_transformer, base):
    encoder = mamba_sentence_encoder(mamba_models.make(), base.tokenizer)
    return export_level(encoder, "full", tmp_path_factory.mktemp("mamba") / "full").folder


def load_app(folder):
    """The page's functions; building it starts no server."""
    pytest.importorskip("gradio")
    spec = importlib.util.spec_from_file_location("space_app", folder / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_searches(folder, model, options):
    """Every level finds what the model itself finds among freshly encoded texts."""
    app = load_app(folder)
    assert [level["name"] for level in app.LEVELS] == list(options)
    for place, kwargs in enumerate(options.values()):
        for dim in app.LEVELS[place]["dims"]:
            wide = {"matryoshka_dim": dim} if app.SPACE["model"]["chooses_dim"] else {}
            query = model.encode_query(["a cat in a city"], **kwargs, **wide)[0, :dim]
            documents = model.encode_document(TEXTS, **kwargs, **wide)[:, :dim]
            scores = documents @ query / np.linalg.norm(documents, axis=1) / np.linalg.norm(query)
            found = app.search("a cat in a city", place, dim)
            np.testing.assert_allclose(found.scores, np.sort(scores)[::-1][:10], atol=1e-5)
            np.testing.assert_allclose(scores[found.places], found.scores, atol=1e-5)
    return app


def test_an_adaptor(family, corpus, tmp_path):
    made = build_space(family, tmp_path / "space", corpus, examples=["a cat"], title="Animals", trust_remote_code=True)
    assert made.levels == ["d4", "d8", "d32"] and made.num_texts == 12 and made.push is None
    names = {path.name for path in made.folder.iterdir()}
    assert names == {
        *("README.md", "app.py", "requirements.txt", "space.json", "corpus.jsonl", "embeddings.safetensors", "model")
    }
    assert load_file(made.folder / "embeddings.safetensors")["embeddings"].shape == (12, 32)
    assert not list((made.folder / "model").rglob("*.onnx"))
    card = SpaceCard.load(made.folder / "README.md").data
    assert card.sdk == "gradio" and card.app_file == "app.py" and card.license == "mit" and card.title == "Animals"
    requirements = (made.folder / "requirements.txt").read_text().splitlines()
    assert requirements[0].startswith(f"gradio>={card.sdk_version}") and "torch>=2.6" in requirements
    imported = {
        name.name.split(".")[0] if isinstance(node, ast.Import) else node.module.split(".")[0]
        for node in ast.walk(ast.parse((made.folder / "app.py").read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported - sys.stdlib_module_names == {"gradio", "numpy", "safetensors", "sentence_transformers"}
    for path in made.folder.glob("*.*"):
        assert str(tmp_path) not in path.read_text(errors="replace"), path
    model = SentenceTransformer(str(family / "full"), device="cpu", trust_remote_code=True)
    app = check_searches(made.folder, model, {"d4": {}, "d8": {}, "d32": {}})

    label, names, _, _, rows, costs = app.show("a cat", 0, 2)
    assert label["label"] == "Level: d4" and "<b>d4</b><span>d8</span>" in names
    assert (
        [row[0] for row in rows] == list(range(1, 11)) and rows[0][2] in TEXTS and rows[0][1].startswith(("0.", "1."))
    )
    assert "| bytes a vector | 16 | 128 |" in costs and "| index of 12 vectors | 192 B | 1.5 KB |" in costs
    assert "| ndcg_at_10 (test) | 0.400 [0.300, 0.500], 80% | 0.500 [0.400, 0.600] |" in costs
    assert "encoding the query" in costs and " of 10 | |" in costs.replace("|  |", "| |")
    rows, costs = app.show("  ", 2, 2)[-2:]
    assert rows == [] and "d32, the largest" in costs and "search" not in costs


def test_a_stock_level_serves_the_smaller_ones_without_remote_code(family, corpus, tmp_path):
    made = build_space(
        family / "d32", tmp_path / "space", corpus, levels=["d4", "d8"], dtype="float16", max_texts=11, field="title"
    )
    assert made.levels == ["d4", "d8"] and made.num_texts == 11 and not list(made.folder.glob("model/*.py"))
    vectors = load_file(made.folder / "embeddings.safetensors")["embeddings"]
    assert vectors.shape == (11, 8) and vectors.dtype == np.float16
    settings = json.loads((made.folder / "space.json").read_text())
    assert settings["model"] == {"name": "model", "revision": None, "trust_remote_code": False, "chooses_dim": False}


def test_budgets_have_vectors_of_their_own(delta, corpus, tmp_path):
    made = build_space(delta, tmp_path / "space", corpus, trust_remote_code=True)
    vectors = load_file(made.folder / "embeddings.safetensors")
    assert set(vectors) == {"w0.25-h2-d1", "w1.0-h2-d2"} and not np.allclose(*vectors.values(), atol=1e-2)
    model = SentenceTransformer(str(delta), device="cpu", trust_remote_code=True)
    app = check_searches(made.folder, model, {name: {"level": name} for name in vectors})
    _, _, wide, widths, _, costs = app.show("a cat", 0, 0)
    assert wide["label"] == "Width: 8 dimensions" and "<b>8</b><span>32</span>" in widths
    assert "| dimensions | 8 | 32 |" in costs and "| parameters |" in costs


def test_a_mamba_encoder(mamba, corpus, tmp_path):
    made = build_space(mamba, tmp_path / "space", corpus, levels=["w0.5", "w1.0"], trust_remote_code=True)
    model = SentenceTransformer(str(mamba), device="cpu", trust_remote_code=True)
    check_searches(made.folder, model, {"w0.5": {"level": "w0.5"}, "w1.0": {"level": "w1.0"}})


def test_a_push_and_a_model_on_the_hub(hub, family, corpus, tmp_path):
    from hf_matryoshka.hub.family import load_family

    load_family(family).push("me/animals")
    options = {"trust_remote_code": True, "push_to_hub": "me/demo", "private": True}
    made = build_space("me/animals", tmp_path / "space", corpus, **options)
    info = HfApi().space_info("me/demo")
    assert (
        made.push.commit == info.sha
        and info.sdk == "gradio"
        and info.private
        and info.card_data.models == ["me/animals"]
    )
    files = hub.files("me/demo", "space")
    assert set(files) - {".gitattributes"} == {path.name for path in made.folder.iterdir()} and "model" not in files
    source = json.loads(files["space.json"])["model"]
    assert source["name"] == "me/animals" and source["revision"] == HfApi().model_info("me/animals").sha
    # What is there already is not sent again, and nothing else is replaced.
    assert build_space("me/animals", made.folder, corpus, overwrite=True, **options).push.commit is None
    HfApi().create_repo("me/other", repo_type="space", space_sdk="gradio")
    HfApi().upload_file(path_or_fileobj=b"1", path_in_repo="x.py", repo_id="me/other", repo_type="space")
    with pytest.raises(FileExistsError, match="me/other on the Hub was not pushed from here"):
        build_space("me/animals", tmp_path / "two", corpus, **options | {"push_to_hub": "me/other"})
    with pytest.raises(PermissionError, match="may write to me"):
        build_space("me/animals", tmp_path / "three", corpus, **options | {"push_to_hub": "you/demo"})
    assert not (tmp_path / "three").exists()


def test_refusals_come_before_any_work(family, delta, corpus, make_adaptor, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_matryoshka.hub.space.load_source", lambda source: pytest.fail("the model was loaded"))
    for name in ("full", "used"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "space.json").write_text("{}")
    (tmp_path / "used" / "x").write_text("x")
    (tmp_path / "empty.txt").write_text("\n")
    export_level(make_adaptor(), None, tmp_path / "vectors")
    export_level(gpt_models.make(), None, tmp_path / "gpt", tokenizer=character_tokenizer(TEXTS))
    new, trusted = tmp_path / "new", {"trust_remote_code": True}
    for model, output, texts, options, error, message in [
        (family, tmp_path / "full", corpus, trusted, FileExistsError, "a Space already; name a new .* --overwrite"),
        (family, tmp_path / "used", corpus, {"overwrite": True}, FileExistsError, "holds files that are no Space"),
        (family, corpus, corpus, {}, NotADirectoryError, "is a file"),
        (family, family / "full" / "x", corpus, trusted, ValueError, "lies inside of the model"),
        (family, new, tmp_path / "none.txt", {}, FileNotFoundError, "none.txt does not exist"),
        (family, new, tmp_path / "empty.txt", {}, ValueError, "holds no text"),
        (family, new, corpus, {"field": "body"}, ValueError, "line 1 of .* has no text in the field 'body'"),
        (family, new, corpus, {"dtype": "int8"}, ValueError, "dtype must be float32 or float16, but is 'int8'"),
        (family, new, corpus, {"max_texts": 0}, ValueError, "max_texts must be at least 1"),
        (family, new, corpus, {}, ValueError, "brings code of its own; read it, then allow it"),
        (family, new, corpus, trusted | {"levels": ["d5"]}, ValueError, "level 'd5' is not in .* has d4, d8, d32"),
        (family, new, corpus, trusted | {"levels": ["d4"]}, ValueError, "a slider needs two levels or more"),
        (tmp_path, new, corpus, {}, FileNotFoundError, "holds no matryoshka.json"),
        (tmp_path / "vectors", new, corpus, trusted, ValueError, "adaptor of embeddings and gives no embeddings of"),
        (tmp_path / "gpt", new, corpus, trusted, ValueError, "gives no embeddings of texts, which a search needs"),
    ]:
        with pytest.raises(error, match=message) as raised:
            build_space(model, output, texts, **options)
        assert "\n" not in str(raised.value) and not new.exists()
    assert [path.name for path in Path(tmp_path).glob(".*")] == []
