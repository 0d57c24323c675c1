"""Exports of the funnel: by itself, and behind a base model."""

import json
import os
import re

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from hf_matryoshka import CardDetails, export_family, export_level, with_convention
from hf_matryoshka.evaluation.curve import Curve, LevelPoint
from hf_matryoshka.hub.cards import UNKNOWN_MODEL_ID
from hf_matryoshka.hub.gate import ExportError
from hf_matryoshka.hub.manifest import Manifest
from hf_matryoshka.modeling.configuration_matryoshka_funnel import PRESETS

from ..modeling.funnel_models import DIMS, KINDS, embeddings, make


TEXTS = ["a cat", "the large river in the city", "protein treats small fish", "bird"]
LEVELS = [f"d{dim}" for dim in DIMS]


def curve(metric, start, system="ours", **baselines):
    points = [LevelPoint(level, None, start + row / 10) for row, level in enumerate(LEVELS)]
    return Curve(points, metric, "test", system, {name: curve(metric, at, name) for name, at in baselines.items()})


def card_of(folder):
    return (folder / "README.md").read_text().replace(UNKNOWN_MODEL_ID, str(folder))


def code_of(card):
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


@torch.no_grad()
@pytest.mark.parametrize("shard_by_level", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_is_a_repo_of_its_own(tmp_path, kind, shard_by_level):
    model, x = make(kind), embeddings()
    family = export_family(model, tmp_path, shard_by_level=shard_by_level)
    assert {name: repo.form for name, repo in family.repos.items()} == dict.fromkeys([*LEVELS, "full"], "remote_code")
    assert max(repo.max_difference for repo in family.repos.values()) <= 1e-6
    assert family.repos["d5"].reason.startswith("a funnel encodes and decodes, for which neither transformers nor")
    for name, levels in {"d3": LEVELS[:1], "d5": LEVELS[:2], "d9": LEVELS, "full": LEVELS}.items():
        assert family.repos[name].levels == levels
        loaded = AutoModel.from_pretrained(tmp_path / name)
        assert loaded.config.levels == tuple(levels) and loaded.config.latent_dim == int(levels[-1][1:])
        for level in levels:
            found, expected = loaded(x, level=level), model(x, level=level)
            torch.testing.assert_close(found.latents, expected.latents, atol=1e-6, rtol=0)
            torch.testing.assert_close(found.reconstructions, expected.reconstructions, atol=1e-6, rtol=0)
    sizes = [sum(file.stat().st_size for file in (tmp_path / name).glob("*.safetensors")) for name in LEVELS]
    if kind != "flow":
        assert sizes[0] < sizes[1] < sizes[2]
    shards = {file.name for file in (tmp_path / "full").glob("*.safetensors")}
    whole = {"model-d3.safetensors"} if kind == "flow" else {f"model-{level}.safetensors" for level in LEVELS}
    assert shards == (whole if shard_by_level else {"model.safetensors"})
    small = AutoModel.from_pretrained(tmp_path / "full", level="d5")
    torch.testing.assert_close(small.decode(small.encode(x)), model(x, level="d5").reconstructions, atol=1e-6, rtol=0)
    manifest = Manifest.from_folder(tmp_path / "full")
    assert (manifest.model_type, manifest.inputs) == ("matryoshka_funnel", "embeddings")
    assert [(level.dim, level.cost) for level in manifest.levels] == [(dim, model.cost(f"d{dim}")) for dim in DIMS]
    for name in ("d3", "full"):
        for code in code_of(card_of(tmp_path / name)):
            names = {}
            exec(code, names)
            assert "decoded" not in names or names["decoded"].shape == (2, 32)


@torch.no_grad()
def test_behind_a_base_model(tmp_path, base):
    model = make("cascade", embedding_convention="mean_norm", embedding_norm=2.0)
    whole = SentenceTransformer(modules=list(base), device="cpu", prompts=dict(base.prompts), similarity_fn_name="dot")
    measured = curve("reconstruction_cosine", 0.6, pca=0.5, pca_int8=0.4)
    others = [curve("neighbour_overlap", 0.3, pca=0.2), curve("ndcg_at_10", 0.1)]
    card = CardDetails(base_model="me/base", curves=[measured, *others])
    family = export_family(model, tmp_path, base_model=whole, card=card, levels=["d5"])
    assert (whole.similarity_fn_name, len(whole)) == ("dot", 3)
    assert Manifest.from_folder(tmp_path / "full").inputs == "text"
    x = torch.from_numpy(base.encode(TEXTS))
    for name, repo in family.repos.items():
        modules = json.loads((repo.folder / "modules.json").read_text())
        assert (modules[-1]["path"], modules[-1]["type"]) == ("", "st_matryoshka_funnel.MatryoshkaFunnel")
        loaded = SentenceTransformer(str(repo.folder), device="cpu", trust_remote_code=True, local_files_only=True)
        # Latents have no unit length: their inner products say little.
        assert loaded.similarity_fn_name == "cosine" and loaded.prompts["query"] == "the question "
        assert loaded.get_embedding_dimension() == (5 if name == "d5" else 9)
        for level in repo.levels:
            expected, kwargs = model(x, level=level), {"matryoshka_dim": int(level[1:])}
            np.testing.assert_allclose(loaded.encode(TEXTS, **kwargs), expected.latents, atol=1e-5)
            decoded = loaded.encode(TEXTS, output="reconstruction", **kwargs)
            np.testing.assert_allclose(decoded, expected.reconstructions, atol=1e-5)
    text = card_of(tmp_path / "d5")
    assert "[me/base](https://huggingface.co/me/base) with a Matryoshka funnel (kind `cascade`" in text
    assert f"{model.cut('d5').num_parameters():,} parameters" in text and "have the length 2." in text
    assert "of the convention `mean_norm`: the mean of the token states at unit length" in text
    assert "| **d5** | **0.700** | **0.600** | **0.500** |" in text and "`neighbour_overlap` on `test`" in text
    assert "`pca` keeps as many principal components" in text and "one byte" in text
    for code in code_of(text):
        exec(code, {})


def test_the_pipeline_embeds_by_the_convention_of_the_funnel(tmp_path, base, tiny_sentence_transformer):
    """A loaded base model is taken or refused; one from a folder is loaded with the modules of the convention."""
    model = make(embedding_convention="raw_mean", geometry="euclidean")
    with pytest.raises(ValueError, match="base_model follow the convention 'mean_norm', but 'raw_mean' is needed"):
        export_level(model, "d3", tmp_path / "out", base_model=base)
    raw = with_convention(base, "raw_mean")
    export_level(model, "d3", tmp_path / "loaded", base_model=raw)
    export_level(model, "d3", tmp_path / "folder", base_model=tiny_sentence_transformer)
    with torch.no_grad():
        expected = model.encode(torch.from_numpy(raw.encode(TEXTS)), "d3")
        other = model.encode(torch.from_numpy(base.encode(TEXTS)), "d3")
    assert (expected - other).abs().max() > 1e-2
    for name in ("loaded", "folder"):
        found = SentenceTransformer(str(tmp_path / name), device="cpu", trust_remote_code=True).encode(TEXTS)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    dense = make(embedding_convention="st_dense_norm")
    with pytest.raises(ValueError, match="'st_dense_norm' needs a Dense without bias"):
        export_level(dense, "d3", tmp_path / "out", base_model=tiny_sentence_transformer)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kind, tensor, what",
    [
        ("residual", "funnel.encoder.output.weight", "latents"),
        ("residual", "funnel.decoder.output.weight", "reconstructions"),
        ("residual", "funnel.densities.first_mean", "whitened latents"),
        ("cascade", "funnel.densities.networks.0.layers.0.weight", "reconstructions"),
        ("flow", "funnel.couplings.1.network.output.weight", "latents"),
    ],
)
def test_the_gate_notices_a_damaged_weight(tmp_path, damage, kind, tensor, what):
    damage(tensor)
    with pytest.raises(ExportError, match=rf"differs from the trained model at level d[35] \(AutoModel, {what}\)"):
        export_level(make(kind), "d5", tmp_path / "out")
    assert not os.listdir(tmp_path)


def test_weights_that_are_not_numbers(tmp_path):
    model = make()
    with torch.no_grad():
        model.funnel.decoder.output.weight[0, 0] = torch.nan
    with pytest.raises(ExportError, match="differs from the trained model at level d3 .* by inf"):
        export_level(model, "d9", tmp_path / "out")
    assert not os.listdir(tmp_path)


def test_the_published_shape_passes_the_gate(tmp_path):
    """As wide as real ones: rounding grows with the width."""
    model = make(noise=0.02, embedding_dim=384, **PRESETS["original"], matryoshka_dims=[16, 64])
    exported = export_level(model, None, tmp_path / "out")
    assert exported.max_difference < 1e-5


@pytest.mark.parametrize(
    "kwargs, error, message",
    [
        ({"format": "stock"}, ValueError, "neither transformers nor sentence-transformers has a class"),
        ({"onnx": True}, ValueError, "the decoder of a funnel needs the length of a latent; leave onnx out"),
        ({"tokenizer": object()}, ValueError, "MatryoshkaFunnelModel takes embeddings and no tokenizer"),
        ({"base_model": "no/such"}, FileNotFoundError, "base_model no/such is not a folder"),
        ({"level": "d4"}, ValueError, "level 'd4' does not exist; choose one of d3, d5, d9"),
    ],
)
def test_bad_arguments(tmp_path, kwargs, error, message):
    kwargs = {"level": "d5", **kwargs}
    with pytest.raises(error, match=message):
        export_level(make(), output_dir=tmp_path / "out", **kwargs)
    with pytest.raises(ValueError, match="base_model gives embeddings of width 32, but the funnel takes 16"):
        base = SentenceTransformer(modules=[torch.nn.Identity()], device="cpu")
        base.get_embedding_dimension = lambda: 32
        export_level(make(embedding_dim=16), "d5", tmp_path / "out", base_model=base)
    assert not os.listdir(tmp_path)


def test_without_the_package_and_saved_again(tmp_path, base, run_script):
    model = make("flow")
    export_level(model, "full", tmp_path / "full", base_model=base, shard_by_level=True)
    with torch.no_grad():
        found = model(torch.from_numpy(base.encode(TEXTS)), level="d5")
    output = run_script(
        f"""
import json, torch
from sentence_transformers import SentenceTransformer

texts, report, source = {TEXTS!r}, [], "full"
for target in ("again", "twice", None):
    model = SentenceTransformer(source, device="cpu", trust_remote_code=True)
    assert type(model[-1]).__module__.startswith("transformers_modules.")
    latents = model.encode(texts, matryoshka_dim=5)
    decoded = model.encode(texts, matryoshka_dim=5, output="reconstruction")
    again = model[-1].funnel.decode(torch.from_numpy(latents)).detach().numpy()
    report.append([latents.tolist(), decoded.tolist(), again.tolist()])
    if target:
        model.save_pretrained(target)
        source = target
print("REPORT" + json.dumps(report))
""",
        without_package=True,
    )
    report = json.loads(output.rpartition("REPORT")[2])
    assert len(report) == 3
    for latents, decoded, again in report:
        np.testing.assert_allclose(latents, found.latents, atol=1e-5)
        np.testing.assert_allclose(decoded, found.reconstructions, atol=1e-5)
        np.testing.assert_allclose(again, found.reconstructions, atol=1e-5)
