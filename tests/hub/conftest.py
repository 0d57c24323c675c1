"""Fixtures of the hub tests."""

import pytest


@pytest.fixture(scope="session")
def base(tiny_sentence_transformer):
    """The tiny base model, with a prompt."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(
        tiny_sentence_transformer, device="cpu", prompts={"query": "the question "}, local_files_only=True
    )


@pytest.fixture(scope="session")
def make_adaptor():
    """Builds adaptors of width 32 whose weights are away from where they start."""
    import torch

    from hf_matryoshka import MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel

    def make(kind="mlp", **kwargs):
        settings = {"embedding_dim": 32, "matryoshka_dims": [4, 8, 32], "num_reflections": 4, **kwargs}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = MatryoshkaAdaptorModel(MatryoshkaAdaptorConfig(kind=kind, **settings)).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        return model

    return make


@pytest.fixture
def damage(monkeypatch):
    """`damage(tensor)`: from then on every export is written with a changed last row of this tensor."""
    from safetensors.torch import load_file, save_file

    from hf_matryoshka.hub.level_exporter import LevelExporter

    writer = LevelExporter.writer

    def change(tensor):
        def damaged(self, form):
            write = writer(self, form)

            def write_and_damage(folder):
                write(folder)
                tensors = load_file(folder / "model.safetensors")
                tensors[tensor] = tensors[tensor].clone()
                tensors[tensor][-1] += 0.01
                save_file(tensors, folder / "model.safetensors", {"format": "pt"})

            return write_and_damage

        monkeypatch.setattr(LevelExporter, "writer", damaged)

    return change
