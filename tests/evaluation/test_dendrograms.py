"""Trees of token embeddings at each prefix length."""

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from hf_matryoshka.data.character_tokenizer import character_tokenizer
from hf_matryoshka.evaluation import dendrograms as module
from hf_matryoshka.evaluation.dendrograms import ABOVE, COLOURS, coloured_tree, plot_dendrograms
from hf_matryoshka.evaluation.token_tree import prefix_linkage

from ..modeling.gpt_models import make


def test_each_cluster_has_a_colour():
    table = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [1.0, 0.1], [-1.0, 0.0], [1.0, 0.3]])
    tree = prefix_linkage(table, 2)
    lines, colours, order = coloured_tree(tree, 2)
    # Three leaves in one cluster, two in the other, and the join of both.
    assert sorted(colours.count(colour) for colour in set(colours)) == [1, 1, 2] and colours.count(ABOVE) == 1
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset([1, 3]), frozenset([0, 2, 4])}
    top = lines[colours.index(ABOVE)]
    assert max(y for _, y in top) == pytest.approx(tree[-1, 2]) and len(lines) == 4
    assert set(coloured_tree(tree, 1)[1]) == {COLOURS[0]} and set(coloured_tree(tree, 5)[1]) == {ABOVE}


def test_a_tree_a_level_in_one_picture(tmp_path, monkeypatch):
    drawn = []

    def look(rows, width, method, centre):
        drawn.append((width, rows, method, centre))
        return prefix_linkage(rows, width, method, centre)

    monkeypatch.setattr(module, "prefix_linkage", look)
    tokenizer, model = character_tokenizer(["abc \n"]), make(vocab_size=7)
    path = plot_dendrograms(model, tokenizer, tmp_path / "trees.png", dpi=50)
    assert [entry[0] for entry in drawn] == [16, 32, 64] and [entry[2:] for entry in drawn] == [("ward", True)] * 3
    # No special tokens.
    assert torch.equal(drawn[0][1], model.get_input_embeddings().weight[:5])
    blue = np.array([int(COLOURS[0][place : place + 2], 16) for place in (1, 3, 5)]) / 255
    few = plot_dendrograms(model, tokenizer, tmp_path / "few.png", clusters=1, widths=[4], tokens=["a", "c"])
    assert drawn[-1][0] == 4 and torch.equal(drawn[-1][1], model.get_input_embeddings().weight[[2, 4]])
    assert (np.abs(imread(few)[..., :3] - blue).max(-1) < 0.2).any() and imread(path).shape[0] == 330
    for options, message in (
        ({"tokens": ["z"]}, "token 'z' is not in the vocabulary of 7 tokens"),
        ({"tokens": ["a"], "clusters": 1}, "a tree needs at least two tokens.* there are 1 tokens and 1 clusters"),
        ({"clusters": 6}, "there are 5 tokens and 6 clusters"),
        ({"widths": [65]}, "width 65 is not between 1 and the 64 columns"),
        ({"method": "median"}, "linkage 'median' does not exist"),
    ):
        with pytest.raises(ValueError, match=message):
            plot_dendrograms(model, tokenizer, tmp_path / "bad.png", **options)
    assert not (tmp_path / "bad.png").exists()
