"""Exports in a process that does not have this package."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from hf_matryoshka.hub.export import export_level


TEXTS = ["a cat", "the large river in the city", "protein treats small fish", "bird"]
DIMS = [4, 8, 32]

# Run with the export folder as argument; prints the largest difference of each check.
SCRIPT = """
import json, sys
from pathlib import Path

sys.modules["hf_matryoshka"] = None

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

root = Path(sys.argv[1])
inputs = np.load(root / "inputs.npz")
texts = list(inputs["texts"])
report = {}


def check(name, actual, expected):
    report[name] = float(np.abs(actual - expected).max()) if actual.shape == expected.shape else "shape"


def check_sentence_transformer(name, model, kind):
    for dim in (4, 8, 32):
        check(f"{name} d{dim}", model.encode(texts, matryoshka_dim=dim), inputs[f"{kind} texts d{dim}"])
    check(f"{name} default", model.encode(texts), inputs[f"{kind} texts d32"])


for kind in ("mlp", "gelu", "orthogonal"):
    adaptor = AutoModel.from_pretrained(root / kind, trust_remote_code=True)
    with torch.no_grad():
        for dim in (4, 8, 32):
            output = adaptor(torch.from_numpy(inputs["vectors"]), level=f"d{dim}").embeddings.numpy()
            check(f"{kind} AutoModel d{dim}", output, inputs[f"{kind} vectors d{dim}"])
    model = SentenceTransformer(str(root / kind), device="cpu", trust_remote_code=True)
    check_sentence_transformer(f"{kind} SentenceTransformer", model, kind)

for number in (1, 2):
    model.save_pretrained(str(root / f"saved{number}"))
    model = SentenceTransformer(str(root / f"saved{number}"), device="cpu", trust_remote_code=True)
    check_sentence_transformer(f"saved {number} times", model, kind)
adaptor = AutoModel.from_pretrained(root / "saved2" / "3_MatryoshkaAdaptor", trust_remote_code=True)
with torch.no_grad():
    output = adaptor(torch.from_numpy(inputs["vectors"]), level="d8").embeddings.numpy()
check("adaptor saved 2 times", output, inputs[f"{kind} vectors d8"])

for kind in ("mlp", "orthogonal"):
    model = SentenceTransformer(str(root / f"{kind}-d8"), device="cpu")
    check(f"{kind} stock", model.encode(texts), inputs[f"{kind} texts d8"])
    model.save_pretrained(str(root / f"{kind}-d8-saved"))
    model = SentenceTransformer(str(root / f"{kind}-d8-saved"), device="cpu")
    check(f"{kind} stock saved", model.encode(texts), inputs[f"{kind} texts d8"])

for name in ("mlp", "mlp-d8"):
    for number, code in enumerate(json.loads((root / "snippets.json").read_text())[name]):
        exec(code, {})
        report[f"{name} snippet {number}"] = 0.0

assert not any(name.startswith("hf_matryoshka.") for name in sys.modules)
print("REPORT" + json.dumps(report))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory, base, make_adaptor):
    root = tmp_path_factory.mktemp("bare")
    models = {
        "mlp": make_adaptor(),
        "gelu": make_adaptor(hidden_act="gelu", projection=True),
        "orthogonal": make_adaptor("orthogonal", projection=True),
    }
    inputs = {"texts": np.array(TEXTS), "vectors": np.random.default_rng(0).normal(size=(9, 32)).astype(np.float32)}
    full = {"texts": torch.from_numpy(base.encode(TEXTS)), "vectors": torch.from_numpy(inputs["vectors"])}
    for kind, model in models.items():
        export_level(model, None, root / kind, base_model=base, format="remote_code")
        if kind != "gelu":
            export_level(model, "d8", root / f"{kind}-d8", base_model=base, format="stock")
        with torch.no_grad():
            for name, values in full.items():
                for dim in DIMS:
                    inputs[f"{kind} {name} d{dim}"] = model(values, matryoshka_dim=dim).embeddings.numpy()
    np.savez(root / "inputs.npz", **inputs)
    snippets = {}
    for name in ("mlp", "mlp-d8"):
        card = (root / name / "README.md").read_text().replace("sentence_transformers_model_id", str(root / name))
        snippets[name] = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    (root / "snippets.json").write_text(json.dumps(snippets))
    (root / "script.py").write_text(SCRIPT)

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(root / "modules"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "script.py", str(root)], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.rpartition("REPORT")[2])


def test_every_output_equals_that_of_the_trained_model(report):
    wrong = {name: value for name, value in report.items() if value == "shape" or not value <= 1e-5}
    assert not wrong


@pytest.mark.parametrize("prefix, count", [("mlp ", 11), ("gelu ", 7), ("orthogonal ", 9), ("saved ", 8)])
def test_nothing_was_left_out(report, prefix, count):
    assert sum(name.startswith(prefix) for name in report) == count
