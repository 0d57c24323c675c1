"""A pushed family, as strangers load it: by id, in fresh processes that do not have this package."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, hf_hub_download
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from hf_matryoshka import AdaptorTrainer, AdaptorTrainingArguments
from hf_matryoshka.data.adaptor_batches import AdaptorCollator, document_anchors, sample_anchors
from hf_matryoshka.hub.export import export_level
from hf_matryoshka.hub.export_family import export_family
from hf_matryoshka.hub.family import load_family
from hf_matryoshka.hub.local import Faults


TEXTS = ["a cat", "the large river in the city", "protein treats small fish", "bird"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, base, make_adaptor):
    folder = tmp_path_factory.mktemp("family")
    family = export_family(make_adaptor(), folder, base_model=base, levels=["d4", "d8"], shard_by_level=True)
    with torch.no_grad():
        full = torch.from_numpy(base.encode(TEXTS))
        expected = {level: make_adaptor()(full, level=level).embeddings.numpy() for level in ("d4", "d8", "d32")}
    return family, expected


LOAD = """
import json, numpy as np, torch
from huggingface_hub import HfApi
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

texts, report = {texts!r}, {{}}
expected = dict(np.load({expected!r}))


def check(name, actual, level):
    assert actual.shape == expected[level].shape, (name, actual.shape)
    report[name] = float(np.abs(actual - expected[level]).max())


revision = {revision!r}
for level in ("d4", "d8"):
    model = SentenceTransformer(f"me/tiny-{{level}}", device="cpu")
    check(f"stock {{level}}", model.encode(texts), level)
model = SentenceTransformer("me/tiny", device="cpu", trust_remote_code=True, revision=revision)
for level in ("d4", "d8", "d32"):
    check(f"full {{level}}", model.encode(texts, matryoshka_dim=int(level[1:])), level)
    adaptor = AutoModel.from_pretrained("me/tiny", level=level, trust_remote_code=True, revision=revision)
    vectors = torch.from_numpy(expected["base"])
    check(f"AutoModel {{level}}", adaptor(vectors).embeddings.detach().numpy(), level)
print("REPORT" + json.dumps(report))
"""


def test_loads_by_id_pinned_and_offline(exported, hub, run_script, base, make_adaptor, tmp_path):
    family, expected = exported
    np.savez(tmp_path / "expected.npz", base=base.encode(TEXTS), **expected)
    family.push("me/tiny")
    pinned = HfApi().repo_info("me/tiny").sha
    # What comes later must not reach those who pinned a commit.
    wrong = make_adaptor("linear")
    export_family(wrong, tmp_path / "other", base_model=base, levels=[]).push("me/tiny")
    assert HfApi().repo_info("me/tiny").sha != pinned
    script = LOAD.format(texts=TEXTS, expected="expected.npz", revision=pinned)
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        hub.requests.clear()
        report = json.loads(run_script(script, without_package=True, **environment).rpartition("REPORT")[2])
        assert len(report) == 8 and max(report.values()) <= 1e-5, report
        assert bool(hub.requests) == (not environment)


def test_the_snippets_of_the_cards_run(exported, hub, run_script):
    family, _ = exported
    family.push("me/tiny")
    cards = [Path(hf_hub_download(repo_id, "README.md")).read_text() for repo_id in ("me/tiny", "me/tiny-d8")]
    snippets = [code for card in cards for code in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)]
    assert len(snippets) >= 4 and all("me/tiny" in code for code in snippets)
    run_script("\n".join(f"exec({code!r}, {{}})" for code in snippets), without_package=True)


def test_the_snippets_about_onnx_run(
    hub, run_script, base, make_adaptor, tiny_nested, tiny_sentence_transformer, tmp_path
):
    pytest.importorskip("onnxruntime")
    tokenizer = AutoTokenizer.from_pretrained(tiny_sentence_transformer)
    masked = tiny_nested.make("TinyNestedForMaskedLM", vocab_size=len(tokenizer), pad_token_id=0)
    exports = {
        "text": (make_adaptor(), {"base_model": base}),
        "vectors": (make_adaptor(), {}),
        "tokens": (masked, {"tokenizer": tokenizer, "format": "remote_code"}),
    }
    snippets = []
    for name, (model, kwargs) in exports.items():
        export_level(model, 0, tmp_path / name, onnx=True, **kwargs)
        load_family(tmp_path / name).push(f"me/{name}", collection=False)
        card = Path(hf_hub_download(f"me/{name}", "README.md")).read_text()
        snippets += re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert sum("InferenceSession" in code or 'allow_patterns="onnx/*"' in code for code in snippets) == 3
    run_script("\n".join(f"exec({code!r}, {{}})" for code in snippets), without_package=True)


def test_the_hf_command_line(exported, hub, tmp_path, run_script):
    family, expected = exported
    family.push("me/tiny")
    script = """
import os, subprocess, sys
hf = os.path.join(os.path.dirname(sys.executable), "hf")
subprocess.run([hf, "download", "me/tiny-d8", "--local-dir", "downloaded"], check=True, capture_output=True)
subprocess.run([hf, "models", "info", "me/tiny"], check=True, capture_output=True)
"""
    run_script(script)
    model = SentenceTransformer(str(tmp_path / "downloaded"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(model.encode(TEXTS), expected["d8"], atol=1e-5)
    # A downloaded repo still knows where the others are.
    found = load_family(tmp_path / "downloaded")
    assert [repo.location for repo in found.repos.values()] == ["me/tiny-d4", "me/tiny-d8", "me/tiny"]
    found.verify()
    with pytest.raises(FileNotFoundError, match="the repo d4 of .* is not at me/tiny-d4; a push needs the folders of"):
        found.push("me/copy")
    (tmp_path / "downloaded" / "0_Transformer" / "model.safetensors").unlink(missing_ok=True)
    (tmp_path / "downloaded" / "model.safetensors").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="downloaded lacks .*model.safetensors, which its matryoshka.json lists"):
        found.verify()
    with pytest.raises(ValueError, match="me/tiny is on the Hub; verify a family, or a downloaded repo, in a folder"):
        load_family("me/tiny").verify()


@pytest.mark.parametrize("seed", range(4))
def test_a_load_through_a_bad_network(exported, hub, seed, monkeypatch):
    family, expected = exported
    family.push("me/tiny")
    hub.faults = Faults(drop=0.1, cut=0.1, delay=0.1, delay_seconds=0.001, seed=seed)
    try:
        model = SentenceTransformer("me/tiny-d8", device="cpu")
    except Exception as error:
        assert str(error), "an error must say something"
    else:
        np.testing.assert_allclose(model.encode(TEXTS), expected["d8"], atol=1e-5)
    try:
        found = load_family("me/tiny")
    except OSError as error:
        assert "matryoshka.json of me/tiny" in str(error) and "\n" not in str(error)
    else:
        assert list(found.repos) == ["d4", "d8", "full"]


def test_a_family_whose_download_breaks_off(exported, hub):
    exported[0].push("me/tiny", collection=False)
    faults = Faults(drop=1.0)
    # The question what there is goes through, the download does not.
    hub.on_request = lambda request: setattr(hub, "faults", faults)
    try:
        with pytest.raises(OSError, match="matryoshka.json of me/tiny cannot be read: .*disconnected"):
            load_family("me/tiny")
    finally:
        hub.on_request = lambda request: None


def test_a_family_that_needs_a_token(exported, hub, monkeypatch):
    exported[0].push("me/tiny", private=True, collection=False)
    with pytest.raises(OSError, match="matryoshka.json of me/tiny cannot be read: Invalid credentials") as caught:
        load_family("me/tiny", token="hf_wrong")
    assert "\n" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PermissionError, match="matryoshka.json of me/tiny needs a token"):
        load_family("me/tiny", token=True)
    with pytest.raises(FileNotFoundError, match="there is no folder me/tiny, and no such repo on the Hub"):
        load_family("me/tiny")


def test_a_tampered_shard_is_named(exported, hub, make_adaptor):
    from transformers import AutoModel

    family, _ = exported
    family.push("me/tiny")
    path = Path(hf_hub_download("me/tiny", "model-d8.safetensors")).resolve()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="model-d8.safetensors of me/tiny is not the file that its index describes"):
        AutoModel.from_pretrained("me/tiny", level="d8")
    AutoModel.from_pretrained("me/tiny", level="d4")


def test_a_trainer_pushes_by_itself(hub, make_adaptor, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    anchors = [document_anchors(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))]
    hub_arguments = {"push_to_hub": True, "hub_model_id": "me/run", "save_steps": 1}
    trainer = AdaptorTrainer(
        make_adaptor(),
        AdaptorTrainingArguments(output_dir=str(tmp_path / "run"), max_steps=2, use_cpu=True, **hub_arguments),
        data_collator=AdaptorCollator(vectors, anchors, random_candidates=20),
        train_dataset=sample_anchors(anchors, 32),
    )
    trainer.train()
    trainer.push_to_hub()
    loaded = type(trainer.model).from_pretrained("me/run")
    state = loaded.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in trainer.model.state_dict().items())
    assert "modeling_matryoshka_adaptor.py" in HfApi().list_repo_files("me/run")
