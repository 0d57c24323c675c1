"""How alike token embeddings are at each prefix length."""

import pytest
import torch
from matplotlib.image import imread

from hf_matryoshka.data.character_tokenizer import character_tokenizer
from hf_matryoshka.evaluation import cosine_maps as module
from hf_matryoshka.evaluation.cosine_maps import plot_cosine_maps, prefix_cosines

from ..modeling.gpt_models import make


def test_each_prefix_is_normalised_on_its_own():
    table = torch.tensor([[3.0, 0.0, 4.0], [1.0, 0.0, -9.0], [0.0, 2.0, 0.0]])
    assert prefix_cosines(table, 1).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    torch.testing.assert_close(prefix_cosines(table, 3).diagonal(), torch.ones(3))
    assert prefix_cosines(table, 3)[0, 1] < -0.5
    for width in (0, 4):
        with pytest.raises(ValueError, match=f"width {width} is not between 1 and the 3 columns"):
            prefix_cosines(table, width)


def test_a_map_a_level_in_one_picture(tmp_path, monkeypatch):
    drawn = []

    def look(table, width):
        drawn.append((width, table))
        return prefix_cosines(table, width)

    monkeypatch.setattr(module, "prefix_cosines", look)
    tokenizer, model = character_tokenizer(["abc \n"]), make(vocab_size=7)
    path = plot_cosine_maps(model, tokenizer, tmp_path / "maps.png", dpi=50)
    assert imread(path).shape[1] > imread(path).shape[0] and [width for width, _ in drawn] == [16, 32, 64]
    # No special tokens.
    assert torch.equal(drawn[0][1], model.get_input_embeddings().weight[:5])
    plot_cosine_maps(model, tokenizer, tmp_path / "maps.png", widths=[4], tokens=["c", "a"], dpi=50)
    assert drawn[-1][0] == 4 and torch.equal(drawn[-1][1], model.get_input_embeddings().weight[[4, 2]])
    with pytest.raises(ValueError, match="token 'z' is not in the vocabulary of 7 tokens"):
        plot_cosine_maps(model, tokenizer, tmp_path / "maps.png", tokens=["z"])
