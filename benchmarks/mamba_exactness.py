"""How exact the Mamba encoder is: cut, streamed, packed, padded, in segments, as a prefix, as a stock Mamba2Model.

    python benchmarks/mamba_exactness.py --run outputs/mamba_minilm --out benchmarks/results/mamba_exactness.json

Largest differences in float32. The texts are abstracts of SciFact, of 40 to 1,500 tokens. Models: `trained`, that of
`--run`; `causal`, `block_bidirectional` and `bidirectional`, of the default sizes, with random weights.

Against the embedding of each text alone, in one piece:
- `streamed`: in three uneven parts (not `bidirectional`, which cannot); `segments`: in segments of 256 tokens;
- `right_padded`, `left_padded`: all texts in one batch; `packed`: all texts in one row.

`cut` is the difference in embeddings and hidden states between a level and the model cut out of it; `prefix` between
the bands of a small dimension, before they have unit length, and the beginning of all bands; `stock` between the
hidden states of `causal` without feed-forward networks and those of the `Mamba2Model` with its weights.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer

from hf_matryoshka import MatryoshkaMambaConfig, MatryoshkaMambaModel
from hf_matryoshka.data.beir import load_beir
from hf_matryoshka.evaluation.report import write_report


DIRECTIONS = ("causal", "block_bidirectional", "bidirectional")
# Characters; the last is several abstracts, one after the other.
TEXTS = (200, 700, 1500, 6000)
SEGMENT = 256


def random_model(vocab_size: int, direction: str, **options: Any) -> MatryoshkaMambaModel:
    torch.manual_seed(0)
    model = MatryoshkaMambaModel(MatryoshkaMambaConfig(vocab_size=vocab_size, direction=direction, **options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or name.endswith("query"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def embed(model: MatryoshkaMambaModel, *inputs: torch.Tensor, **options: Any) -> torch.Tensor:
    return model(*inputs, return_tokens=False, **options).embeddings


def ways(model: MatryoshkaMambaModel, texts: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The embeddings of some texts, computed in different ways; `alone` is what they are compared with."""
    segment_length, found = model.config.segment_length, {}
    # Longer than any text: in one piece.
    model.config.segment_length = 2**20
    found["alone"] = torch.cat([embed(model, text[None]) for text in texts])
    right = pad_sequence(texts, batch_first=True), pad_sequence([torch.ones_like(text) for text in texts], True)
    found["right_padded"] = embed(model, *right)
    left = [part.flip(0) for part in texts]
    left = pad_sequence(left, True).flip(1), pad_sequence([torch.ones_like(text) for text in left], True).flip(1)
    found["left_padded"] = embed(model, *left)
    row = torch.cat(texts)[None]
    numbers = torch.cat([torch.full_like(text, number) for number, text in enumerate(texts)])[None]
    found["packed"] = embed(model, row, segment_ids=numbers)
    model.config.segment_length = SEGMENT
    if model.config.direction != "bidirectional":
        found["segments"] = embed(model, *right)
        streamed = []
        for text in texts:
            state = model.new_state()
            for part in text[None].split([1, len(text) // 3, len(text) - len(text) // 3 - 1], dim=1):
                state = model.update(state, part)
            streamed.append(model.embed(state))
        found["streamed"] = torch.cat(streamed)
    model.config.segment_length = segment_length
    return found


def row(system: str, level: str, metric: str, *pairs: tuple[torch.Tensor, torch.Tensor]) -> dict[str, Any]:
    value = max((a - b).abs().max().item() for a, b in pairs)
    print(f"{system:>20} {level:>8} {metric:>12} {value:.1e}", flush=True)
    return {"system": system, "level": level, "metric": metric, "value": value, "low": None, "high": None}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run of `hf-matryoshka train mamba`")
    parser.add_argument("--data", default="../shared/data", type=Path, help="folder with scifact/")
    parser.add_argument("--out", default="benchmarks/results/mamba_exactness.json")
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.run / "model")
    documents = " ".join(load_beir(arguments.data / "scifact").documents()[:20])
    texts = [tokenizer(documents[:length], return_tensors="pt")["input_ids"][0] for length in TEXTS]
    models = {"trained": MatryoshkaMambaModel.from_pretrained(arguments.run / "model").eval()}
    models |= {direction: random_model(len(tokenizer), direction) for direction in DIRECTIONS}
    rows = []
    for name, model in models.items():
        found = ways(model, texts)
        largest = model.config.levels[-1]
        rows += [row(name, largest, way, (found[way], found["alone"])) for way in found if way != "alone"]
        for level in model.config.levels:
            small = model.cut(level)
            outputs = [(model(text[None], level=level), small(text[None])) for text in texts]
            pairs = [(a.last_hidden_state, b.last_hidden_state) for a, b in outputs]
            rows.append(row(name, level, "cut", *pairs, *((a.embeddings, b.embeddings) for a, b in outputs)))
        hidden = model(texts[0][None]).last_hidden_state
        bands = [model.head(model.head.pooling(hidden, None, count + 1)) for count in range(len(model.config.bands))]
        rows.append(row(name, largest, "prefix", *((part, bands[-1][:, : part.shape[1]]) for part in bands[:-1])))
    mixers = random_model(len(tokenizer), "causal", intermediate_size=0)
    stock = mixers.to_stock()
    pairs = [(mixers(text[None]).last_hidden_state, stock(text[None]).last_hidden_state) for text in texts]
    rows.append(row("causal_mixers", mixers.config.levels[-1], "stock", *pairs))
    lengths = [len(text) for text in texts]
    print(write_report(arguments.out, "mamba_exactness", rows, tokens=lengths))


if __name__ == "__main__":
    main()
