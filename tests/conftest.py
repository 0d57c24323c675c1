"""Fixtures that every test folder shares. The tests reach no network and leave the user's caches and tokens alone."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from hf_matryoshka.hub import LocalHub


# Hugging Face libraries read these when they are imported.
assert "huggingface_hub" not in sys.modules, "huggingface_hub was imported before it was told where the Hub is"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_MATRYOSHKA_CACHE"] = tempfile.mkdtemp(prefix="hf-matryoshka-tests-")
os.environ["HF_HOME"] = os.path.join(os.environ["HF_MATRYOSHKA_CACHE"], "home")
os.environ["HF_MODULES_CACHE"] = os.path.join(os.environ["HF_MATRYOSHKA_CACHE"], "modules")
# The only hub that a test can reach, whatever switches offline mode off. Its token is for those that use it.
LOCAL_HUB = LocalHub().start()
os.environ.update(LOCAL_HUB.environment())
del os.environ["HF_TOKEN"]
# Tiny models: threads cost more than they give, and the same order of sums on every machine is worth more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

atexit.register(shutil.rmtree, os.environ["HF_MATRYOSHKA_CACHE"], ignore_errors=True)
atexit.register(LOCAL_HUB.stop)

TINY_WORDS = "a the of in is and cat dog bird fish river city gene cell protein drug treats causes small large".split()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The local hub, empty and without faults, which Hugging Face libraries in this process reach with the write token
    and with empty caches until the test ends."""
    import datasets.config
    from huggingface_hub import HfFileSystem, constants

    LOCAL_HUB.reset()
    HfFileSystem.clear_instance_cache()  # it remembers what lay in repos of the same name
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("HF_TOKEN", LOCAL_HUB.token)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    yield LOCAL_HUB
    LOCAL_HUB.reset()


@pytest.fixture
def run_script(hub, tmp_path):
    """Runs Python code in a fresh process that uses the local hub; returns its standard output.

    `run_script(code, without_package=True, HF_HUB_OFFLINE="1")`: keyword arguments are environment variables. All
    scripts of a test share one `HF_HOME`, so that a later one finds what an earlier one downloaded. Without the
    package, `import hf_matryoshka` fails, as for a user of an exported repo.
    """

    def run(code, *, without_package=False, **environment):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        own = {"HF_HOME": str(tmp_path / "script-home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        if without_package:
            kept.pop("PYTHONPATH", None)
            code = f'import sys; sys.modules["hf_matryoshka"] = None\n{code}'
        finished = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**kept, **hub.environment(), **own, **environment},
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, finished.stderr[-4000:]
        return finished.stdout

    return run


@pytest.fixture(scope="session")
def tiny_sentence_transformer(tmp_path_factory):
    """Path (`str`) of a saved 32-dim SentenceTransformer (2-layer BERT, mean pooling, normalised, fixed weights)."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = special + TINY_WORDS + [prefix + letter for letter in letters for prefix in ("", "##")]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))

    folder = tmp_path_factory.mktemp("tiny-sentence-transformer")
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        # Ten times BERT's own: otherwise all texts get almost the same vector.
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder / "bert")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    ).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    model = SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode="mean"), Normalize()], device="cpu")
    model.save(str(folder / "model"))
    return str(folder / "model")


pytest_plugins = ["tests.tiny_nested_plugin"]


@pytest.fixture(scope="session")
def wheel_site(tmp_path_factory):
    """Folder (`Path`) with the content of the built wheel, as `pip install` leaves it in site-packages."""
    root, build = Path(__file__).resolve().parents[1], tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(
        ".*", "tests", "benchmarks", "outputs", "build", "dist", "*.egg-info", "__pycache__"
    )
    # A copy, because setuptools leaves its own folders in the source.
    shutil.copytree(root, build / "source", ignore=ignored)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "-w", str(build)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(build / "source")]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    (wheel,) = build.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(build / "site")
    return build / "site"
