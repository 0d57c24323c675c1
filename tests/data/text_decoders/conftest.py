"""Another Python environment with a stand-in for vec2text, so that the real worker script runs."""

import subprocess
import sys
import sysconfig

import pytest


# The functions that vec2text 0.0.13 has under these names. It answers with what it was asked; the first number of an
# embedding can make it fail.
VEC2TEXT = """
import atexit, importlib.util, os, sys, types
import torch

print("a library may print when it is imported")
atexit.register(print, "and log at the exit", file=sys.stderr)
for name in ("hf_matryoshka", "corpus_search", "vec2text_worker"):
    assert importlib.util.find_spec(name) is None, name
assert "PYTHONPATH" not in os.environ


class Corrector:
    def __init__(self, name):
        self.name, self.model = name, types.SimpleNamespace(device="cpu")


class models:
    class InversionModel:
        from_pretrained = staticmethod(lambda name: f"inversion {name}")

    class CorrectorEncoderModel:
        from_pretrained = staticmethod(lambda name: f"corrector {name}")


def load_pretrained_corrector(name):
    assert name == "gtr-base", f"embedder {name} is not supported"
    os.system("echo so may a child")
    return Corrector(name)


def load_corrector(inversion_model, corrector_model):
    os.mkdir("tmp_trainer")
    return Corrector(f"{inversion_model} + {corrector_model}")


def invert_embeddings(embeddings, corrector, num_steps=None, sequence_beam_width=0, max_length=128):
    print("inverting", len(embeddings))
    assert embeddings.dtype == torch.float32 and not torch.is_grad_enabled()
    first = int(embeddings[0, 0])
    if first == 661:
        raise RuntimeError("CUDA out of\\n  memory")
    if first == 662:
        os.kill(os.getpid(), 9)
    if first == 663:
        return []
    asked = f"{corrector.name}, {num_steps} steps, beam {sequence_beam_width}, batch of {len(embeddings)}"
    return [f"\\u00fc\\n{asked}: {row[0]:.3f} of length {row.norm():.3f}" for row in embeddings]
"""


# What the worker uses of torch, without the seconds that the real one takes to be imported.
TORCH = """
import contextlib, numpy
float32, no_grad, is_grad_enabled = numpy.float32, contextlib.nullcontext, lambda: False


class Tensor(numpy.ndarray):
    to = lambda self, device: self
    split = lambda self, size: [self[start : start + size] for start in range(0, len(self), size)]
    norm = lambda self: numpy.linalg.norm(numpy.asarray(self))


from_numpy = lambda array: array.view(Tensor)
"""


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory):
    """Makes a Python environment with the torch of this one and with the modules given as `name="source"`; returns its
    interpreter."""

    def make(**modules):
        folder = tmp_path_factory.mktemp("environment")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        (site_packages,) = folder.glob("lib/python*/site-packages")
        (site_packages / "torch.pth").write_text(sysconfig.get_path("purelib") + "\n")
        for name, source in modules.items():
            (site_packages / f"{name}.py").write_text(source)
        return folder / "bin" / "python"

    return make


@pytest.fixture(scope="session")
def vec2text_python(make_environment):
    """Interpreter (`Path`) of an environment with a stand-in for vec2text."""
    return make_environment(vec2text=VEC2TEXT)


@pytest.fixture(scope="session")
def quick_python(make_environment):
    """The same with a stand-in for torch, too."""
    return make_environment(vec2text=VEC2TEXT, torch=TORCH)
