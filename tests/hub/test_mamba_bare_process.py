"""Exports of the Matryoshka Mamba encoder in a process that does not have this package."""

import json
import os
import re
import subprocess
import sys

import numpy as np
from transformers import AutoTokenizer

from hf_matryoshka import export_family, mamba_sentence_encoder
from hf_matryoshka.hub.cards import UNKNOWN_MODEL_ID

from ..modeling import mamba_models


TEXTS = ["a cat", "the large river in the city of the small fish", "", "protein " * 40]
LEVELS = ["w0.25", "w0.5", "w1.0"]
DIMS = [8, 16, 48]

# Run with the folder of a family as argument; prints the largest difference of each check.
SCRIPT = """
import json, sys
from pathlib import Path

sys.modules["hf_matryoshka"] = None

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

root, work = Path(sys.argv[1]), Path(sys.argv[2])
expected, report = np.load(work / "expected.npz"), {}
texts = list(expected["texts"])


def check(name, repo, model):
    for level in model[0].levels:
        found = model[0].encode_all_dims(texts, level=level)
        for dim in (8, 16, 48):
            pairs = (model.encode(texts, level=level, matryoshka_dim=dim), "encode"), (found[dim], "all")
            for actual, way in pairs:
                report[f"{name} {level} {dim} {way}"] = float(np.abs(actual - expected[f"{level} {dim}"]).max())
    inputs = AutoTokenizer.from_pretrained(repo, trust_remote_code=True)(texts[1], return_tensors="pt")
    with torch.no_grad():
        vector = AutoModel.from_pretrained(repo, trust_remote_code=True)(**inputs, level=0).embeddings[0].numpy()
    report[f"{name} AutoModel"] = float(np.abs(vector - expected["w0.25 48"][1]).max())


for name in ("w0.5", "full"):
    check(name, root / name, SentenceTransformer(str(root / name), device="cpu", trust_remote_code=True))
model = SentenceTransformer(str(root / "full"), device="cpu", trust_remote_code=True)
for number in (1, 2):
    model.save_pretrained(str(work / f"again{number}"))
    model = SentenceTransformer(str(work / f"again{number}"), device="cpu", trust_remote_code=True)
    check(f"saved {number} times", work / f"again{number}", model)
for name, snippets in json.loads((work / "snippets.json").read_text()).items():
    for number, code in enumerate(snippets):
        exec(code, {})
        report[f"{name} snippet {number}"] = 0.0
assert not any(name.startswith("hf_matryoshka.") for name in sys.modules)
print("REPORT" + json.dumps(report))
"""


def test_every_repo_loads_with_the_code_that_it_brings_along(tiny_sentence_transformer, tmp_path):
    """Also after it was saved from there, twice; and the cards tell the truth."""
    encoder = mamba_sentence_encoder(mamba_models.make(), AutoTokenizer.from_pretrained(tiny_sentence_transformer))
    family = export_family(encoder, tmp_path / "family", levels=["w0.5"], shard_by_level=True)
    expected = {
        f"{level} {dim}": encoder.encode(TEXTS, level=level, matryoshka_dim=dim) for level in LEVELS for dim in DIMS
    }
    np.savez(tmp_path / "expected.npz", texts=np.array(TEXTS), **expected)
    cards = {
        name: (repo.folder / "README.md").read_text().replace(UNKNOWN_MODEL_ID, str(repo.folder))
        for name, repo in family.repos.items()
    }
    snippets = {name: re.findall(r"```python\n(.*?)```", cards[name], flags=re.DOTALL) for name in family.repos}
    # Both libraries, streaming, one level of several.
    assert {name: len(found) for name, found in snippets.items()} == {"w0.5": 4, "full": 4}
    (tmp_path / "snippets.json").write_text(json.dumps(snippets))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(family.folder), str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout.rpartition("REPORT")[2])
    assert {name: value for name, value in report.items() if not value <= 1e-6} == {}
    # Two and three times three levels, at three dimensions in two ways; AutoModel; the snippets.
    assert len(report) == (2 + 3 * 3) * 3 * 2 + 4 + 8
