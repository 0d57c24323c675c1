"""From a text to an embedding, to a few numbers, back to an embedding and to a text: how near does it come?

    python benchmarks/funnel_round_trip.py --bf16 --out benchmarks/results/funnel_round_trip.json

Texts, embeddings and funnel are those of configs/funnel_minilm.yaml (`ours`, trained if its run is not in `--work`).
The first `--texts` held-out texts are encoded at each stage and decoded by `CorpusTextDecoder`, which answers with the
nearest of the training texts; the text it gives is one of these, and its embedding is that of all-MiniLM-L6-v2.

Split `heldout`; `round_trip_cosine`: cosine of the embedding of the decoded text and that of the original one, a mean
with its 95% bootstrap interval; `round_trip_p5`: what 95% of the texts exceed; `same_text`: share of the texts that
decode to the same one as the whole embedding does. `pca` decodes by principal components of the training embeddings;
`whole` is the embedding itself: more is not to be had from this corpus.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from funnel_reconstruction import funnel_code, linear, read_config

from hf_matryoshka.data.convention_encoders import load_encoder
from hf_matryoshka.data.embedding_rows import split_rows
from hf_matryoshka.data.text_decoders.corpus_decoder import CorpusTextDecoder
from hf_matryoshka.data.text_decoders.text_decoder import RoundTrip, round_trip_cosine
from hf_matryoshka.evaluation.baselines import unit
from hf_matryoshka.evaluation.bootstrap import bootstrap_mean
from hf_matryoshka.evaluation.reconstruction import linear_codes
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.recipes.distillation_texts import gather_texts
from hf_matryoshka.recipes.teacher_embeddings import teacher_embeddings
from hf_matryoshka.recipes.train_funnel import train_funnel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", default=2000, type=int)
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16, as the run in --work was")
    parser.add_argument("--work", default="outputs/funnel/ours_s0", type=Path)
    parser.add_argument("--out", default="benchmarks/results/funnel_round_trip.json")
    arguments = parser.parse_args()

    recipe, training = read_config("funnel_minilm")
    model = train_funnel(
        recipe, arguments.work, training | {"seed": 0} | ({"bf16": True} if arguments.bf16 else {})
    ).model.eval()
    encoder = load_encoder(recipe.base_model_path)
    encoder.max_seq_length = recipe.max_length
    texts = gather_texts(recipe)
    vectors = unit(teacher_embeddings(encoder, texts))
    train, _, test = split_rows(vectors, (recipe.validation_fraction, recipe.test_fraction), recipe.seed)
    corpus = [texts[row] for row in train.rows]
    places = {text: place for place, text in enumerate(corpus)}
    known, asked = train[:], test[: arguments.texts]
    decoder = CorpusTextDecoder(corpus, known)

    def trip(embeddings: np.ndarray) -> RoundTrip:
        return round_trip_cosine(decoder, lambda found: known[[places[text] for text in found]], embeddings, asked)

    whole = trip(asked)
    rows, table = [], []

    def add(system: str, level: str, found: RoundTrip) -> None:
        mean, low, high = bootstrap_mean(found.cosines.astype(np.float64))
        same = float(np.mean([a == b for a, b in zip(found.texts, whole.texts, strict=True)]))
        row = {"system": system, "level": level, "split": "heldout", "seeds": 1, "texts": len(asked)}
        rows.append(row | {"metric": "round_trip_cosine", "value": mean, "low": low, "high": high})
        for metric, value in (("round_trip_p5", found.p5), ("same_text", same)):
            rows.append(row | {"metric": metric, "value": value, "low": None, "high": None})
        table.append([system, level, f"{mean:.4f}", f"{found.p5:.4f}", f"{same:.4f}"])
        print(*table[-1], flush=True)

    add("whole", "all", whole)
    codes: dict[str, Callable] = {"ours": funnel_code(model), "pca": linear(linear_codes(known)["pca"])}
    for level, dim in zip(model.config.levels, model.config.matryoshka_dims, strict=True):
        for system, code in codes.items():
            add(system, level, trip(code(asked, dim)[1]))
    print(format_rows(["system", "level", "cosine", "5%", "same text"], table))
    print(write_report(arguments.out, "funnel_round_trip", rows, corpus_texts=len(corpus)))


if __name__ == "__main__":
    main()
