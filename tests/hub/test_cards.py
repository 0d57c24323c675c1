"""Model cards. `HF_MATRYOSHKA_RENEW_GOLDEN=1 pytest tests/hub/test_cards.py` rewrites `golden/*.md`: read the diff."""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard

from hf_matryoshka.evaluation.certificate import Certificate, CertifiedGate, PairDifference, Split
from hf_matryoshka.evaluation.curve import Curve, LevelPoint
from hf_matryoshka.hub.card_tables import sibling_placeholder
from hf_matryoshka.hub.cards import PLOT_FILE, UNKNOWN_MODEL_ID, CardDetails, CardFacts, fill_repo_ids, write_card
from hf_matryoshka.hub.manifest import FamilyLevel, FamilyRepo, Manifest
from hf_matryoshka.hub.onnx_check import Int8Loss
from hf_matryoshka.hub.onnx_export import OnnxExport
from hf_matryoshka.modeling.dimension_frontier import Frontier, FrontierPoint


GOLDEN = Path(__file__).parent / "golden"
ADAPTOR = {"kind": "mlp", "embedding_dim": 32, "with_base": True}
MODEL = {
    "auto_class": "AutoModelForMaskedLM",
    "pipeline_tag": "fill-mask",
    "with_tokenizer": True,
    "runs_pipeline": True,
}
ENCODER = {"auto_class": "AutoModel", "with_base": True, "embedding_dim": 32, "matryoshka_dims": [8, 16, 32]}
FRONTIER = Frontier(
    [FrontierPoint("d32", dim, [dim / 40, dim / 50], {128: 0.5 * dim}) for dim in (8, 16, 32)],
    "ndcg_at_10",
    "SciFact test",
    "x86_64, 2 threads",
)
MAMBA = {
    "auto_class": "AutoModel",
    "embedding_dim": 32,
    "matryoshka_dims": [8, 16, 32],
    "direction": "causal",
    "segment_length": 1024,
    "dim_levels": None,
    "frontier": None,
    "trade_offs": [],
}
FUNNEL = {
    "kind": "residual",
    "embedding_dim": 384,
    "with_base": True,
    "geometry": "sphere",
    "embedding_norm": 1.0,
    "convention": None,
    "stage_dims": [4, 8, 32],
    "parameters": 1234567,
}
NAMES = ["d4", "d8", "d32"]


def onnx(dims):
    losses = [Int8Loss(dim, mean_cosine=0.9991, min_cosine=0.99, neighbour_overlap=0.95) for dim in dims]
    sizes = {"model.onnx": 1000, "model_int8.onnx": 260}
    return OnnxExport(Path("onnx"), dims, max_difference=2.5e-7, sizes=sizes, int8=losses, num_samples=256)


def curve(system, split="test", start=0.5, interval=True, baselines=None):
    points = [
        LevelPoint(f"d{dim}", dim, start + dim / 100, *((start, start + 0.4) if interval else ()))
        for dim in (4, 8, 32)
    ]
    return Curve(points, "ndcg_at_10", split, system, baselines or {})


CURVES = [
    curve("ours", baselines={"truncation": curve("truncation", start=0.1, interval=False)}),
    curve("ours", split="test_unseen", interval=False),
]
DETAILS = CardDetails(
    base_model="me/base",
    license="mit",
    curves=CURVES,
    tags=["mine"],
    datasets=["me/corpus"],
    training_data="4,000 documents of the corpus, without labels.",
    language="en",
    eval_dataset="mteb/scifact",
    eval_name="SciFact",
    eval_task="text-retrieval",
    limits=["It reads English only."],
)


def manifest(this, forms, levels=None, curves=(), model_type="matryoshka_adaptor", dims=True, reason=None):
    """A family of three levels; `forms` has the form of each repo by name."""
    family = []
    for name in NAMES:
        width = int(name[1:])
        quality = [
            {"metric": one.metric, "split": one.split, "value": one[name].quality}
            | {"low": one[name].low, "high": one[name].high}
            for one in curves
        ]
        cost = {"parameters": 1000 * width, "macs": 900.0 * width, "latency_ms": 0.1}
        if dims:
            cost["bytes_per_vector"] = 4 * width
        family.append(FamilyLevel(name, width if dims else None, cost, quality))
    repos = [
        FamilyRepo(name, f"../{name}", levels or ([name] if name != "full" else NAMES), form, reason, 1.23e-7, {})
        for name, form in forms.items()
    ]
    return Manifest(model_type, this, "text", family, repos)


def reconstruction(system, start, **baselines):
    points = [LevelPoint(f"d{dim}", dim, start + dim / 100, start, start + 0.4) for dim in (4, 8, 32)]
    found = {name: reconstruction(name, at) for name, at in baselines.items()}
    return Curve(points, "reconstruction_cosine", "test", system, found)


def budgeted(manifest):
    """The same family as budgets: levels of one output width."""
    budgets = {"d4": [[0.25, 0.5], 1, 2], "d8": [0.5, 6, 6], "d32": [1.0, 12, 12]}
    levels = [
        replace(
            level, dim=32, budget=budgets[level.name], cost=level.cost | {"flops_per_token": 2 * level.cost["macs"]}
        )
        for level in manifest.levels
    ]
    return replace(manifest, levels=levels, matryoshka_dims=[8, 16, 32])


def certificate(*differences, chain=("d4", "d8", "d32"), **fields):
    """Of a chain, with the difference of each pair; its bounds are 0.01 apart from it."""
    steps = list(zip(chain, chain[1:], strict=False))
    pairs = [(chain[0], chain[1]), (chain[0], chain[-1]), (chain[1], chain[-1])][: len(differences)]
    given = {
        "metric": "nll",
        "unit": "rows",
        "chain": list(chain),
        "gates": [CertifiedGate(*step, 0.25 * number) for number, step in enumerate(steps, start=1)],
        "pairs": [
            PairDifference(*pair, value, value - 0.01, value + 0.01, value + 0.01 <= 0, value > 0)
            for pair, value in zip(pairs, differences, strict=True)
        ],
        "calibration": Split(900, 700, "ab"),
        "certificate": Split(1000, 800, "cd"),
        "tolerance": 0.0,
        "confidence": 0.95,
        "resamples": 10_000,
        "date": "2026-01-02",
        "changed": ["d8", "d32"],
        "violations_before": 2,
    }
    return Certificate(**{**given, **fields})


STOCK = dict.fromkeys(NAMES, "stock") | {"full": "remote_code"}
NESTED = {"d4": "stock", "d8": "stock_padded", "d32": "remote_code", "full": "remote_code"}
WHY = "it holds all levels in one, for which there is no stock class"
TYPE = {"model_type": "matryoshka_bert", "dims": False}
MAMBA_TYPE = {"model_type": "matryoshka_mamba"}
FUNNEL_CURVES = [reconstruction("ours", 0.6, pca=0.5, pca_uncentred=0.4, pca_int8=0.45), CURVES[0]]
FUNNEL_WHY = "a funnel encodes and decodes, for which there is no class"
FUNNEL_TYPE = {"model_type": "matryoshka_funnel", "reason": FUNNEL_WHY}
FACTS = {
    "adaptor-stock": CardFacts(manifest("d8", STOCK, curves=CURVES), "adaptor.md", ADAPTOR, DETAILS),
    "adaptor-full": CardFacts(
        manifest("full", STOCK, curves=CURVES, reason=WHY), "adaptor.md", ADAPTOR, DETAILS, sharded=True
    ),
    "adaptor-stock-onnx": CardFacts(
        manifest("d8", {"d8": "stock"}),
        "adaptor.md",
        ADAPTOR | {"base_remote_code": True},
        CardDetails(base_model="me/base", language=["en", "de"]),
        onnx=onnx([8]),
    ),
    "adaptor-vectors": CardFacts(
        manifest("d8", {"d8": "remote_code"}, ["d4", "d8"], reason="a stock repo takes texts, so it needs base_model"),
        "adaptor.md",
        ADAPTOR | {"with_base": False, "kind": "orthogonal"},
        CardDetails(),
        onnx=onnx([4, 8]),
    ),
    "model-stock": CardFacts(manifest("d4", NESTED, curves=CURVES, **TYPE), "model.md", MODEL, DETAILS),
    "model-stock-padded": CardFacts(
        manifest("d8", NESTED, reason="its heads have another width than hidden_size / heads", **TYPE),
        "model.md",
        MODEL | {"auto_class": "AutoModelForCausalLM", "pipeline_tag": "text-generation"},
        CardDetails(eval_name="the validation texts", datasets=["me/a", "me/b"]),
    ),
    "model-full-sharded": CardFacts(
        manifest("full", NESTED, curves=CURVES, reason=WHY, **TYPE), "model.md", MODEL, DETAILS, sharded=True
    ),
    "model-tokens": CardFacts(
        manifest("d4", {"d4": "remote_code"}, reason="NestedBert has no stock counterpart in transformers", **TYPE),
        "model.md",
        {"auto_class": "AutoModel", "pipeline_tag": "feature-extraction", "with_tokenizer": False},
        CardDetails(license="apache-2.0"),
        sharded=True,
    ),
    "model-certified": CardFacts(
        replace(
            manifest("d8", NESTED, curves=CURVES, **TYPE),
            certificate=certificate(
                -0.02,
                -0.3,
                0.005,
                gates=[CertifiedGate("d4", "d8", 0.25), CertifiedGate("d8", "d32", 1.0, "d32 runs 2 more layers")],
            ),
        ),
        "model.md",
        MODEL,
        CardDetails(),
    ),
    "encoder-stock": CardFacts(
        budgeted(manifest("d8", STOCK, curves=CURVES, model_type="delta_bert")),
        "sentence_encoder.md",
        ENCODER,
        DETAILS,
        onnx=onnx([8, 16, 32]),
    ),
    "encoder-full-sharded": CardFacts(
        budgeted(manifest("full", NESTED, reason=WHY, model_type="delta_bert")),
        "sentence_encoder.md",
        ENCODER,
        CardDetails(),
        sharded=True,
    ),
    "encoder-one-width": CardFacts(
        replace(budgeted(manifest("d32", {"d32": "remote_code"}, ["d32"], reason=WHY)), matryoshka_dims=[]),
        "sentence_encoder.md",
        ENCODER | {"matryoshka_dims": []},
        CardDetails(base_model="me/base"),
    ),
    "funnel-full-sharded": CardFacts(
        manifest("full", dict.fromkeys([*NAMES, "full"], "remote_code"), curves=FUNNEL_CURVES, **FUNNEL_TYPE),
        "funnel.md",
        FUNNEL,
        replace(DETAILS, curves=FUNNEL_CURVES),
        sharded=True,
    ),
    "funnel-vectors": CardFacts(
        manifest("d4", {"d4": "remote_code"}, **FUNNEL_TYPE),
        "funnel.md",
        FUNNEL | {"with_base": False, "kind": "flow", "geometry": "euclidean", "convention": "raw_mean"},
        CardDetails(base_model="me/base"),
    ),
    "mamba-full-sharded": CardFacts(
        budgeted(manifest("full", dict.fromkeys(STOCK, "remote_code"), curves=CURVES, reason=WHY, **MAMBA_TYPE)),
        "mamba.md",
        MAMBA | {"with_base": True, "frontier": FRONTIER, "trade_offs": FRONTIER.trade_offs()},
        DETAILS,
        sharded=True,
    ),
    "mamba-tokens": CardFacts(
        budgeted(manifest("d8", {"d8": "remote_code"}, ["d4", "d8"], reason="no embeddings", **MAMBA_TYPE)),
        "mamba.md",
        MAMBA | {"direction": "bidirectional", "with_tokenizer": False, "dim_levels": {8: "d4", 16: "d8", 32: "d8"}},
        CardDetails(),
    ),
    "mamba-stock": CardFacts(
        budgeted(manifest("d32", {"d32": "stock"}, **MAMBA_TYPE)),
        "mamba.md",
        MAMBA | {"with_tokenizer": True, "pipeline_tag": "feature-extraction"},
        CardDetails(),
    ),
}


@pytest.fixture
def written(tmp_path):
    """Writes a card into a new folder and returns the folder."""

    def write(facts, **details):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        write_card(folder, replace(facts, details=replace(facts.details, **details)))
        return folder

    return write


@pytest.mark.parametrize("name", FACTS)
def test_golden(name, written):
    text = (written(FACTS[name]) / "README.md").read_text(encoding="utf-8")
    golden = GOLDEN / f"{name}.md"
    if os.environ.get("HF_MATRYOSHKA_RENEW_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_every_golden_file_and_every_template_is_in_use():
    assert {path.stem for path in GOLDEN.iterdir()} == set(FACTS)
    templates = {path.name for path in (Path(__file__).parents[2] / "hub_cards").glob("[!_]*.md")}
    # Those of an optimiser's run and of a Space are no cards of a level: tests/hub/test_push_run.py and test_space.py.
    assert {facts.template for facts in FACTS.values()} == templates - {"lsbo.md", "space.md"}


@pytest.mark.parametrize("name", FACTS)
def test_text_is_clean(name, written):
    text = (written(FACTS[name]) / "README.md").read_text(encoding="utf-8")
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert "\n\n\n" not in text and not re.search(r"[ \t]$|\{[%{#]", text, flags=re.MULTILINE)
    prose = re.sub(r"```.*?```", "", ModelCard(text).text, flags=re.DOTALL)
    assert "None" not in prose and "Undefined" not in prose
    for table in re.findall(r"(?:^\|.*\n)+", prose, flags=re.MULTILINE):
        header, line, *rows = table.splitlines()
        assert set(line) == {"|", "-"} and rows
        assert {row.count("|") for row in (header, line, *rows)} == {line.count("|")}
    # Every table stands free, or it would be text.
    assert not re.search(r"^[^|\n].*\n\|", prose, flags=re.MULTILINE)
    assert not re.search(r"^\|.*\n[^|\n]", prose, flags=re.MULTILINE)


@pytest.mark.parametrize("name", FACTS)
def test_metadata_survives_a_round_trip(name, written):
    card = ModelCard.load(written(FACTS[name]) / "README.md")
    again = ModelCard(f"---\n{card.data.to_yaml()}\n---\n")
    assert again.data.to_dict() == card.data.to_dict()


def test_metadata(written):
    def data(name, **details):
        return ModelCard.load(written(FACTS[name], **details) / "README.md").data

    stock = data("adaptor-stock")
    assert (stock.base_model, stock.base_model_relation, stock.license) == ("me/base", "finetune", "mit")
    assert (stock.library_name, stock.pipeline_tag) == ("sentence-transformers", "sentence-similarity")
    assert (stock.language, stock.datasets) == ("en", ["me/corpus"])
    assert stock.tags == ["sentence-transformers", "feature-extraction", "matryoshka", "matryoshka-adaptor", "mine"]
    assert [result.metric_value for result in stock.eval_results] == [0.58, 0.58]
    assert len(data("adaptor-full").eval_results) == 6
    vectors = data("adaptor-vectors", base_model="me/base")
    assert (vectors.base_model_relation, vectors.library_name) == ("adapter", "transformers")
    bare = data("adaptor-vectors").to_dict()
    assert not {"base_model", "base_model_relation", "license", "datasets", "language", "model-index"} & set(bare)
    assert "onnx" in bare["tags"]
    model = data("model-stock")
    assert (model.library_name, model.pipeline_tag) == ("transformers", "fill-mask")
    assert (model.base_model_relation, model.tags) == ("finetune", ["matryoshka", "matryoshka-bert", "mine"])


def test_eval_results_need_a_data_set_on_the_hub(written):
    folder = written(FACTS["adaptor-full"])
    assert len(list((folder / ".eval_results").iterdir())) == 6
    folder = written(FACTS["adaptor-full"], eval_dataset=None)
    assert not (folder / ".eval_results").exists()
    assert ModelCard.load(folder / "README.md").data.eval_results[0].dataset_type == "SciFact"
    folder = written(FACTS["adaptor-full"], eval_dataset=None, eval_name=None)
    assert ModelCard.load(folder / "README.md").data.eval_results is None


def test_without_scores_there_are_no_eval_results(written):
    folder = written(FACTS["adaptor-vectors"], eval_dataset="mteb/scifact")
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    assert ModelCard.load(folder / "README.md").data.eval_results is None


def test_the_plot_lies_beside_its_card(written, tmp_path):
    (tmp_path / "plot.png").write_bytes(b"png")
    folder = written(FACTS["adaptor-stock"], plot=tmp_path / "plot.png")
    assert (folder / PLOT_FILE).read_bytes() == b"png"
    assert f"\n\n![Quality against size]({PLOT_FILE})\n\n" in (folder / "README.md").read_text()


def test_what_is_certified_is_said_in_one_sentence(written):
    def text(*differences, **fields):
        family = replace(FACTS["encoder-stock"].manifest, certificate=certificate(*differences, **fields))
        return (written(replace(FACTS["encoder-stock"], manifest=family)) / "README.md").read_text()

    card = text(-0.02, -0.3, -0.2)
    assert "\n\n## Certificate\n\nEach level of this chain is inside the next: d4 → d8 → d32.\n\n**Cert" in card
    assert "**Certified:** on data like these 1000 held-out rows, no larger level of the chain is worse than" in card
    assert "a smaller one in mean `nll`, with 95% confidence for all 3 pairs together. Nothing is said about" in card
    assert "about single rows, other data or other metrics.\n\n| smaller |" in card
    assert "| d4 | **d8** | 0.25 | -0.0200 [-0.0300, -0.0100] | yes |\n| d4 | d32 |  | -0.3000" in card
    assert "the certificate's rows the larger level had the higher mean in 2 of 3 pairs before, and in 0 of 3" in card
    card = text(-0.02, chain=("d4", "d32"), tolerance=0.5, confidence=0.9, changed=[], violations_before=None)
    assert "worse than a smaller one by more than 0.5 in mean `nll`, with 90% confidence. Nothing" in card
    assert "other metrics, or the levels outside the chain: d8.\n" in card
    assert "900 other held-out rows and changed nothing. On the certificate's rows" in card
    assert "had the higher mean in 0 of 1 pair. Brackets" in card
    card = text(0.02, 0.3, 0.2, unit="texts")
    assert "**Not certified:** for none of the 3 pairs do these 1000 held-out texts show, with 95% confidence" in card
    assert "**Certified" not in card and "| yes |" not in card


def test_a_second_card_is_equal(written, tmp_path):
    folders = [written(FACTS["adaptor-full"]) for _ in range(2)]
    contents = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in folders
    ]
    assert contents[0] == contents[1] and len(contents[0]) == 8
    # Drawn from the curves, because no plot was given.
    assert contents[0][Path(PLOT_FILE)].startswith(b"\x89PNG")


def test_a_push_fills_in_every_id():
    ids = {"d1": "me/x-d1", "d16": "me/x-d16", "full": "me/x"}
    text = f"[d1]({sibling_placeholder('d1')}) [d16]({sibling_placeholder('d16')}) {UNKNOWN_MODEL_ID}"
    assert fill_repo_ids(text, ids, "full") == (
        "[d1](https://huggingface.co/me/x-d1) [d16](https://huggingface.co/me/x-d16) me/x"
    )


@pytest.mark.parametrize("name", FACTS)
def test_a_pushed_card_holds_no_placeholder(name, written):
    facts = FACTS[name]
    ids = {repo.name: f"me/x-{repo.name}" for repo in facts.manifest.repos}
    text = fill_repo_ids((written(facts) / "README.md").read_text(), ids, facts.manifest.this)
    assert UNKNOWN_MODEL_ID not in text and "](../" not in text
    assert f'"me/x-{facts.manifest.this}"' in text
    linked = set(re.findall(r"\]\(https://huggingface.co/(me/x-\w+)\)", text))
    assert linked == set(ids.values()) - {f"me/x-{facts.manifest.this}"}


def blocks(folder, path):
    """The Python blocks of a card, for the repo at a path."""
    text = (folder / "README.md").read_text(encoding="utf-8").replace(UNKNOWN_MODEL_ID, str(path))
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("name", FACTS)
def test_remote_code_is_asked_for_where_it_is_needed_and_only_there(name, written):
    facts = FACTS[name]
    calls = [line for block in blocks(written(facts), "x") for line in block.splitlines() if '"x"' in line]
    calls = [line for line in calls if "_download(" not in line]
    remote = not facts.manifest.repo.stock or "base_remote_code" in facts.fields
    assert calls and {"trust_remote_code=True" in line for line in calls} == {remote}


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_blocks_of_a_stock_model_run(written, tiny_sentence_transformer, monkeypatch, with_tokenizer):
    fields = MODEL | {
        "auto_class": "AutoModel",
        "pipeline_tag": "feature-extraction",
        "with_tokenizer": with_tokenizer,
    }
    folder = written(replace(FACTS["model-stock"], fields=fields))
    found = blocks(folder, tiny_sentence_transformer)
    assert len(found) == 2
    for block in found:
        names = {}
        exec(block, names)
        assert "pipe" in names or names["outputs"].last_hidden_state.shape[-1] == 32


class StandIn:
    """Takes the calls of a tokenizer, a model and a pipeline, and nothing that they would not take."""

    mask_token = "[MASK]"
    calls: list = []

    @classmethod
    def from_pretrained(cls, path, trust_remote_code, level=None):
        cls.calls.append(level)
        return cls()

    def __call__(self, text=None, return_tensors="pt", input_ids=None, level=None):
        self.calls.append(level or text)
        return {}


def test_blocks_of_a_nested_model_run(written, monkeypatch):
    """Against stand-ins: every name is defined, and each level is one that the repo has."""
    stand_in = type("StandIn", (StandIn,), {"calls": []})
    library = SimpleNamespace(AutoModel=stand_in, AutoModelForMaskedLM=stand_in, AutoTokenizer=stand_in)
    library.pipeline = lambda task, model, trust_remote_code: stand_in.from_pretrained(model, trust_remote_code)
    stand_in.tokenizer = stand_in
    monkeypatch.setitem(sys.modules, "transformers", library)
    for name in ("model-full-sharded", "model-tokens"):
        for block in blocks(written(FACTS[name]), "x"):
            exec(block, {})
    assert set(stand_in.calls) == {None, "d4", "one text", "one [MASK] text"}


@pytest.mark.parametrize("field", ["base_model", "eval_dataset", "datasets"])
def test_an_id_that_the_hub_would_refuse(field):
    bad = "some/where/base"
    with pytest.raises(ValueError, match=f"{field} must be an id of the Hub such as 'user/name', but is '{bad}'"):
        CardDetails(**{field: [bad] if field == "datasets" else bad})


@pytest.mark.parametrize("field", ["tags", "datasets", "limits"])
def test_a_text_in_place_of_a_list(field):
    with pytest.raises(ValueError, match=f"{field} must be a list, but is 'me/x'"):
        CardDetails(**{field: "me/x"})
