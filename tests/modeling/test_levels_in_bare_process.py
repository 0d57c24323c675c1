"""Levels of repos with remote code, in a process that does not have this package."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from . import funnel_models
from .nested_models import HEADS, KINDS, make_adaptor


AUTO = {
    "TinyNestedModel": "AutoModel",
    "TinyNestedForMaskedLM": "AutoModelForMaskedLM",
    "TinyNestedForSequenceClassification": "AutoModelForSequenceClassification",
}

# Run with the folder of the repos as argument; prints for each check whether values are equal bit for bit.
SCRIPT = """
import json, os, shutil, sys
from pathlib import Path

sys.modules["hf_matryoshka"] = None

import numpy as np
import torch
import transformers

root = Path(sys.argv[1])
expected = np.load(root / "expected.npz")
report = {}


def load(auto, folder, level):
    model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True, level=level)
    assert type(model).__module__.startswith("transformers_modules.")
    return model


def check(name, model, key):
    state = model.state_dict()
    names = {full.removeprefix(key + "/") for full in expected.files if full.startswith(key + "/")}
    report[name] = names == set(state) and all(
        bool(np.array_equal(state[tensor].numpy(), expected[f"{key}/{tensor}"])) for tensor in names
    )


for repo, auto, levels in json.loads((root / "repos.json").read_text()):
    for level in levels:
        check(f"{repo} {level}", load(auto, root / repo, level), f"{repo}/{level}")
    # Loaded with the code of the repo, cut, saved by level with that code, and loaded again.
    middle = load(auto, root / repo, None).cut(levels[1])
    check(f"{repo} cut", middle, f"{repo}/{levels[1]}")
    middle.save_pretrained(root / f"{repo}-saved", shard_by_level=True)
    check(f"{repo} saved", load(auto, root / f"{repo}-saved", levels[0]), f"{repo}/{levels[0]}")

assert not any(name.startswith("hf_matryoshka.") for name in sys.modules)
print("REPORT" + json.dumps(report))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory, tiny_nested):
    root = tmp_path_factory.mktemp("bare")
    models = {kind: (make_adaptor(kind), "AutoModel") for kind in KINDS}
    models |= {kind: (funnel_models.make(kind), "AutoModel") for kind in funnel_models.KINDS}
    models |= {name: (tiny_nested.make(name), AUTO[name]) for name in HEADS}
    expected, repos = {}, []
    for repo, (model, auto) in models.items():
        model.save_pretrained(root / repo, shard_by_level=True)
        repos.append((repo, auto, model.config.levels))
        for level in model.config.levels:
            small = model.cut(level)
            expected |= {f"{repo}/{level}/{name}": value.numpy() for name, value in small.state_dict().items()}
    np.savez(root / "expected.npz", **expected)
    (root / "repos.json").write_text(json.dumps(repos))
    (root / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(root / "modules"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "script.py", str(root)], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.rpartition("REPORT")[2])


@pytest.mark.parametrize("repo", [*KINDS, *funnel_models.KINDS, *HEADS])
def test_every_level_is_equal_to_a_cut_one(report, repo):
    checks = {name: equal for name, equal in report.items() if name.split()[0] == repo}
    # A level of an orthogonal adaptor that was cut is a linear adaptor, with other tensors below.
    if repo == "orthogonal":
        checks.pop("orthogonal saved")
    assert len(checks) >= 4 and all(checks.values()), checks
