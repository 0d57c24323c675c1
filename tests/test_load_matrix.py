"""Every architecture, every AutoClass, every way that a user has of loading it: equal outputs at every level."""

import json

import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoTokenizer, PreTrainedModel

from hf_matryoshka import (
    MatryoshkaAdaptorConfig,
    MatryoshkaAdaptorModel,
    mamba_sentence_encoder,
    nest_sentence_encoder,
    save_self_contained,
)

from .modeling import delta_models, funnel_models, mamba_models


# Also run in the processes below: loads a location with every AutoClass that it offers and compares each level.
CHECK = '''
import json
from pathlib import Path

import torch
import transformers


def outputs_of(model, inputs, level):
    """What a level computes: the first output, and what a funnel decodes it to."""
    found = model(**inputs, level=level)
    return torch.cat([found[0], found.reconstructions], dim=-1) if "reconstructions" in found else found[0]


def check(location, expected, report, what, **kwargs):
    """`expected` holds the inputs, the name of the saved class, and the outputs of it and of its base by level.
    Returns the model of the saved class."""
    config = transformers.AutoConfig.from_pretrained(location, **kwargs)
    autos, saved = [name for name in config.auto_map if name.startswith("AutoModel")], None
    for auto in autos:
        model = getattr(transformers, auto).from_pretrained(location, **kwargs).eval()
        own = type(model).__name__ == expected["class"]
        for level, outputs in expected["levels"].items():
            with torch.no_grad():
                actual = outputs_of(model if own else model.base_model, expected["inputs"], level)
            wanted = outputs["own" if own else "base"]
            difference = (actual - wanted).abs().max().item() if actual.shape == wanted.shape else 9
            report[f"{what} {auto} {level}"] = difference
        saved = model if own else saved
    return saved
'''
exec(CHECK)

# The same of a sentence-transformers model, also saved again from where it was loaded.
CHECK_SENTENCES = """
from sentence_transformers import SentenceTransformer


def check_sentences(location, expected, report, what, trust=True):
    model = SentenceTransformer(location, device="cpu", trust_remote_code=trust)
    for (level, dim), embeddings in expected.items():
        actual = model.encode(["a cat", "the large river"], level=level, matryoshka_dim=dim)
        report[f"{what} {level} {dim}"] = abs(torch.from_numpy(actual) - embeddings).max().item()
    with torch.no_grad():
        encoder = transformers.AutoModel.from_pretrained(location, trust_remote_code=trust).eval()
        ids = torch.arange(5, 14)[None]
        difference = encoder(ids, level=0)[0] - model[0].model(ids, level=0)[0]
    report[f"{what} AutoModel"] = difference.abs().max().item()
    return model
"""
exec(CHECK_SENTENCES)

HEADS = ("TinyNestedModel", "TinyNestedForMaskedLM", "TinyNestedForSequenceClassification")
ADAPTORS = [f"adaptor-{kind}" for kind in ("mlp", "linear", "orthogonal", "permutation")]
FUNNELS = [f"funnel-{kind}" for kind in funnel_models.KINDS]
# By name: the budgets; widths that differ from layer to layer, fewer heads, a narrower residual stream.
DELTAS = {"DeltaBertForMaskedLM": "mixed", "DeltaModernBertForMaskedLM": "heads", "DeltaModernBertModel": "joint"}
MAMBA = "MatryoshkaMambaModel"
# Sentence-transformers models, by name.
SENTENCES = ("sentences", "mamba-sentences")
# The package has these classes; the tests' own architecture is in no wheel.
PACKAGED = [*ADAPTORS, *FUNNELS, *DELTAS, MAMBA]


@torch.no_grad()
def expectation(model, inputs):
    # The part of an adaptor or a funnel that is called its base is no model by itself.
    base = model.base_model if isinstance(model.base_model, PreTrainedModel) else model
    return {
        "class": type(model).__name__,
        "inputs": inputs,
        "levels": {
            level: {"own": outputs_of(model, inputs, level), "base": outputs_of(base, inputs, level)}  # noqa: F821
            for level in model.config.levels
        },
    }


@pytest.fixture(scope="module")
def models(tiny_nested):
    """By name: the models, and what they compute."""
    generator = torch.Generator().manual_seed(0)
    vectors = {"embeddings": torch.randn(5, 32, generator=generator)}
    tokens = {"input_ids": torch.randint(5, 90, (2, 9), generator=generator)}
    found = {}
    for kind in ("mlp", "linear", "orthogonal", "permutation"):
        config = MatryoshkaAdaptorConfig(
            embedding_dim=32, matryoshka_dims=[4, 8, 32], kind=kind, num_reflections=4, hidden_act="tanh"
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = MatryoshkaAdaptorModel(config).eval()
            for parameter in model.parameters():
                parameter.data.add_(0.2 * torch.randn_like(parameter))
        found[f"adaptor-{kind}"] = model, expectation(model, vectors)
    for name in FUNNELS:
        model = funnel_models.make(name.removeprefix("funnel-"))
        found[name] = model, expectation(model, vectors)
    for name in HEADS:
        model = tiny_nested.make(name, output_scale=2.0)
        found[name] = model, expectation(model, tokens)
    for name, budgets in DELTAS.items():
        model = delta_models.make(name, budgets)
        found[name] = model, expectation(model, tokens)
    model = mamba_models.make()
    found[MAMBA] = model, expectation(model, tokens)
    return found


def test_all_ways_give_equal_outputs(models, hub, run_script, wheel_site, tiny_sentence_transformer, tmp_path):
    encoder = nest_sentence_encoder(tiny_sentence_transformer, [[0.25, 1, 1], [1.0, 2, 2]], [4, 16], residual="joint")
    texts = ["a cat", "the large river"]
    mamba = mamba_models.make(widths=[0.5, 1.0], matryoshka_dims=[4, 16])
    mamba = mamba_sentence_encoder(mamba, AutoTokenizer.from_pretrained(tiny_sentence_transformer))
    sentences = {}
    for name, model in zip(SENTENCES, (encoder, mamba), strict=True):
        sentences[name] = {
            (level, dim): torch.from_numpy(model.encode(texts, level=level, matryoshka_dim=dim))
            for level in model[0].levels
            for dim in (4, 16)
        }
        torch.save(sentences[name], tmp_path / f"{name}.pt")
        save_self_contained(model, tmp_path / "saved" / name)
        HfApi().create_repo(f"me/{name}")
        HfApi().upload_folder(repo_id=f"me/{name}", folder_path=tmp_path / "saved" / name)
    for name, (model, expected) in models.items():
        model.save_pretrained(tmp_path / "saved" / name)
        model.push_to_hub(f"me/{name}")
        torch.save(expected, tmp_path / f"{name}.pt")

    # Editable install or checkout: this process. No remote code is needed or run.
    report = {}
    for name, (_, expected) in models.items():
        check(tmp_path / "saved" / name, expected, report, f"editable {name}")  # noqa: F821 - defined by CHECK

    for name, expected in sentences.items():
        check_sentences(str(tmp_path / "saved" / name), expected, report, f"editable {name}")  # noqa: F821

    # The wheel, away from the checkout; what it saves goes to the process below.
    output = run_script(
        CHECK
        + CHECK_SENTENCES
        + f"""
import hf_matryoshka.modeling

assert hf_matryoshka.__file__.startswith({str(wheel_site)!r}), hf_matryoshka.__file__
report = {{}}
for name in {PACKAGED!r}:
    expected = torch.load(f"{{name}}.pt", weights_only=True)
    model = check(f"saved/{{name}}", expected, report, f"wheel {{name}}")
    assert type(model).__module__.startswith("hf_matryoshka.modeling.")
    check(f"me/{{name}}", expected, report, f"wheel, by id {{name}}")
    model.save_pretrained(f"wheel/{{name}}")
from hf_matryoshka import save_self_contained
for name in {SENTENCES!r}:
    expected = torch.load(f"{{name}}.pt", weights_only=True)
    model = check_sentences(f"saved/{{name}}", expected, report, f"wheel {{name}}")
    save_self_contained(model, f"wheel/{{name}}")
print("REPORT" + json.dumps(report))
""",
        PYTHONPATH=str(wheel_site),
    )
    report |= json.loads(output.rpartition("REPORT")[2])

    # Nobody's package: the code comes with the repo, also after it was saved and pushed from there, twice.
    output = run_script(
        CHECK
        + CHECK_SENTENCES
        + f"""
report, trust = {{}}, {{"trust_remote_code": True}}
for name in {list(models)!r}:
    expected = torch.load(f"{{name}}.pt", weights_only=True)
    check(f"saved/{{name}}", expected, report, f"remote code {{name}}", **trust)
    check(f"me/{{name}}", expected, report, f"remote code by id {{name}}", **trust)
    auto = next(a for a, c in transformers.AutoConfig.from_pretrained(f"saved/{{name}}", **trust).auto_map.items()
                if c.endswith("." + expected["class"]))
    model = getattr(transformers, auto).from_pretrained(f"me/{{name}}", **trust)
    for number in (1, 2):
        model.save_pretrained(f"again{{number}}/{{name}}")
        check(f"again{{number}}/{{name}}", expected, report, f"saved again {{number}} {{name}}", **trust)
        model = getattr(transformers, auto).from_pretrained(f"again{{number}}/{{name}}", **trust)
    model.push_to_hub(f"me/{{name}}-again")
    check(f"me/{{name}}-again", expected, report, f"pushed again {{name}}", **trust)
    model.save_pretrained(f"sharded/{{name}}", shard_by_level=True)
    check(f"sharded/{{name}}", expected, report, f"sharded again {{name}}", **trust)
    if Path(f"wheel/{{name}}").is_dir():
        check(f"wheel/{{name}}", expected, report, f"saved from the wheel {{name}}", **trust)
for name in {SENTENCES!r}:
    expected = torch.load(f"{{name}}.pt", weights_only=True)
    check_sentences(f"wheel/{{name}}", expected, report, f"saved from the wheel {{name}}")
    model = check_sentences(f"saved/{{name}}", expected, report, f"remote code {{name}}")
    model.save_pretrained(f"again/{{name}}")
    model = check_sentences(f"again/{{name}}", expected, report, f"saved again {{name}}")
    model = check_sentences(f"me/{{name}}", expected, report, f"remote code by id {{name}}")
    model.push_to_hub(f"me/{{name}}-again")
    check_sentences(f"me/{{name}}-again", expected, report, f"pushed again {{name}}")
print("REPORT" + json.dumps(report))
""",
        without_package=True,
    )
    report |= json.loads(output.rpartition("REPORT")[2])

    assert {name: value for name, value in report.items() if not value <= 1e-6} == {}
    # Two levels at two widths, and the encoder by itself, in seven ways.
    for name in SENTENCES:
        assert sum(f" {name} " in key for key in report) == 7 * 5
    # 3 levels each; an adaptor, a funnel and the Mamba have one AutoClass, other encoders three. Nothing was left out.
    ways = [
        "editable",
        "remote code",
        "remote code by id",
        "saved again 1",
        "saved again 2",
        "pushed again",
        "sharded again",
    ]
    for name in models:
        count = 3 * (1 if name in (*ADAPTORS, *FUNNELS, MAMBA) else 3)
        expected_ways = [*ways, "wheel", "wheel, by id", "saved from the wheel"] if name in PACKAGED else ways
        for way in expected_ways:
            assert sum(key.startswith(f"{way} {name} AutoModel") for key in report) == count, (way, name)
