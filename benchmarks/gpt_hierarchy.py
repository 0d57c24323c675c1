"""Trees of characters in the embeddings of a Matryoshka GPT: imposed, emergent, or just there.

    python benchmarks/gpt_hierarchy.py --out benchmarks/results/gpt_hierarchy.json

Three models a seed, all trained as configs/gpt_shakespeare.yaml says: `plain` (the `ours_nested` of
gpt_shakespeare.py, whose runs are used where they are), `ours_imposed`, whose first 2, 4 and 8 channels learn the
groups of configs/characters.yaml, and `ours_emergent`, whose first 4, 8 and 16 learn 4, 4 and 8 clusters of the whole
embeddings, from step 1,000 of 2,000 on and renewed every 250 steps. `dbscan` (eps 0.1, 3 neighbours, as the first
Matryoshka GPT had it) and `hdbscan` cluster the prefixes of `plain`.

Split `vocabulary`, of the 65 characters, against {symbol, upper, lower}: `ari`, `nmi`, the `number` of clusters, and
`nestedness`, the share of the clusters of a prefix that lie inside one of the next shorter prefix. `clusters` says of
what: `tree`, the tree of the whole embeddings, cut into 4, 4 and 8 (Ward's linkage of the centred rows), which are
the groups of `ours_emergent`, and what the same cut gives in the other models; `prefix_ward`, as many clusters, in the
same way, of the prefix alone: what its channels have learned; `prefix_average`, three of the prefix alone by average
linkage of the cosine: what was known of plain models before. `dendrogram_purity` and `cophenetic` are those of the
trees of the prefixes alone.

Split `validation`, the last tenth of the text: `nll` of each level (nats a character), `nll_minus_plain`, the mean
over the seeds of the paired difference with its 95% t-interval. `group_accuracy`: how often the most likely group, as
a prefix of the last hidden state predicts it, is that of the next character; `full_group_accuracy`, as the whole model
does; `largest_group`, as it is if always the most frequent one is named. The groups are those of
configs/characters.yaml (`groups`: `imposed`), or the model's own (`tree`). `mistake_severity`: mean height, in those
of the config, at which the wrongly predicted and the true character meet. Metrics with `_mean` are means over the
seeds with 95% t-intervals; some of them are printed.

All choices were made on another text, 1.1 M characters from books of Project Gutenberg without Shakespeare, with one
seed. What is clustered and how (embeddings or prefixes; average, weighted, complete or Ward's linkage; centred or not;
2 to 10 clusters): Ward's linkage of the centred whole embeddings, cut into 4, agreed best with the classes throughout
a plain training. How prefixes learn the clusters: with the probability of the group alone, from step 500 on and
renewed every 100 steps, rare letters joined the rare signs and the prefixes followed only in part, and that run was
ended; with uniform targets over the group, from step 1,000 on, tree and prefixes agreed as well as before. The options
of `ours_imposed` are the defaults and were not tuned.

Runs lie in `--work` and `--nested`; an interrupted call goes on. The report is of what is done; where a run of `plain`
is not there, its losses are those of the committed report of gpt_shakespeare.py, which the run repeats to the last
digit.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpt_shakespeare import CONFIG, NESTED, held_out, read_config, train
from torch.utils.data import DataLoader

from hf_matryoshka import GPTRecipe
from hf_matryoshka.data.causal_collator import CausalCollator
from hf_matryoshka.data.taxonomy import Taxonomy
from hf_matryoshka.evaluation.hierarchy_metrics import (
    adjusted_rand_index,
    cophenetic_correlation,
    dendrogram_purity,
    mistake_severity,
    nestedness,
    normalized_mutual_information,
)
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.seed_interval import seed_interval
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.evaluation.token_tree import (
    dbscan_clusters,
    hdbscan_clusters,
    nested_clusters,
    prefix_distances,
    prefix_linkage,
)
from hf_matryoshka.recipes.train_gpt import TrainedGPT, load_run
from hf_matryoshka.trainers.losses.group_marginal import group_log_probabilities


GROUPS = Path(__file__).parents[1] / "configs" / "characters.yaml"
SHAKESPEARE = Path(__file__).parent / "results" / "gpt_shakespeare.json"
COUNTS = {4: 4, 8: 4, 16: 8}
EMERGENCE = {"hierarchy_start_step": 1000, "hierarchy_refresh_steps": 250}
EMERGENCE |= {"hierarchy_targets": "soft", "hierarchy_weight": 0.3}
WIDTHS = (4, 8, 16, 32, 64, 128)
# Of the clusters that the first Matryoshka GPT prints (https://github.com/evintunador/matryoshkaGPT), scored once.
FIRST = {"d4": 0.575, "d8": 0.415}
PRINTED = ("ari", "dendrogram_purity", "nestedness", "group_accuracy", "mistake_severity", "nll", "nll_minus_plain")
PLAIN, EMERGENT, IMPOSED = "plain", "ours_emergent", "ours_imposed"


class Vocabulary:
    """The characters of a model, their embeddings and their classes."""

    def __init__(self, trained: TrainedGPT):
        vocabulary = trained.tokenizer.get_vocab()
        special = set(trained.tokenizer.all_special_tokens)
        tokens = [token for token in sorted(vocabulary, key=vocabulary.get) if token not in special]
        self.ids = [vocabulary[token] for token in tokens]
        self.table = trained.model.get_input_embeddings().weight.detach()[self.ids]
        self.classes = np.array([1 if token.isupper() else 2 if token.islower() else 0 for token in tokens])

    def clusters(self) -> dict[str, dict[int, np.ndarray]]:
        """Clusters of each way to make them, by prefix length."""
        whole = self.table.shape[1]
        found = {"tree": nested_clusters(self.table, COUNTS, "ward", tree_width=whole, centre=True)}
        found |= {"prefix_ward": {}, "prefix_average": {}, "dbscan": {}, "hdbscan": {}}
        for width in WIDTHS:
            count = COUNTS.get(width, 4)
            found["prefix_ward"] |= nested_clusters(self.table, {width: count}, "ward", centre=True)
            found["prefix_average"] |= nested_clusters(self.table, {width: 3})
            found["dbscan"][width] = dbscan_clusters(self.table, width)
            found["hdbscan"][width] = hdbscan_clusters(self.table, width)
        return found

    def agreement(self, found: dict[int, np.ndarray]) -> list[dict[str, Any]]:
        """How well clusters agree with the classes and with each other."""
        rows = []
        for place, (width, labels) in enumerate(found.items()):
            values = {
                "ari": adjusted_rand_index(labels, self.classes),
                "nmi": normalized_mutual_information(labels, self.classes),
                "number": float(len(np.unique(labels))),
            }
            # Of longer prefixes there are not more clusters.
            if place and width in COUNTS:
                values["nestedness"] = nestedness(list(found.values())[place - 1], labels)
            rows += [{"level": f"d{width}", "metric": metric, "value": value} for metric, value in values.items()]
        return rows

    def trees(self) -> list[dict[str, Any]]:
        """How good the trees of the prefixes are."""
        rows = []
        for name, method, centre in (("prefix_ward", "ward", True), ("prefix_average", "average", False)):
            for width in WIDTHS:
                tree, distances = (
                    prefix_linkage(self.table, width, method, centre),
                    prefix_distances(self.table, width, centre),
                )
                values = {
                    "dendrogram_purity": dendrogram_purity(tree, self.classes),
                    "cophenetic": cophenetic_correlation(tree, distances),
                }
                row = {"level": f"d{width}", "clusters": name}
                rows += [row | {"metric": metric, "value": value} for metric, value in values.items()]
        return rows


@torch.no_grad()
def predictions(recipe: GPTRecipe, trained: TrainedGPT, groups: dict[str, dict[int, torch.Tensor]]) -> list[dict]:
    """How well prefixes of the hidden state predict groups of the next character, and how bad mistakes are."""
    model = trained.model
    head = model.get_output_embeddings().weight
    right: dict[tuple[str, int, str], float] = {}
    wrong: dict[str, list[np.ndarray]] = {}
    targets: list[np.ndarray] = []
    for batch in DataLoader(held_out(recipe, trained), 64, collate_fn=CausalCollator(0)):
        labels = batch["labels"][:, 1:]
        known = labels != -100
        output = model(batch["input_ids"], position_ids=batch.get("position_ids"), output_hidden_states=True)
        hidden, logits, labels = output.hidden_states[-1][:, :-1][known], output.logits[:, :-1][known], labels[known]
        targets.append(labels.numpy())
        for name, found in groups.items():
            for width, ids in found.items():
                prefix = hidden[:, :width] @ head[:, :width].T
                for metric, scores in (("group_accuracy", prefix), ("full_group_accuracy", logits)):
                    chosen = group_log_probabilities(scores, ids).argmax(-1)
                    key = name, width, metric
                    right[key] = right.get(key, 0) + float((chosen == ids[labels]).sum())
        wrong.setdefault("d128", []).append(logits.argmax(-1).numpy())
        for level in model.config.levels[:-1]:
            smaller = model(batch["input_ids"], position_ids=batch.get("position_ids"), level=level).logits
            wrong.setdefault(level, []).append(smaller[:, :-1][known].argmax(-1).numpy())
    truth = np.concatenate(targets)
    rows = []
    for (name, width, metric), value in right.items():
        rows.append({"level": f"d{width}", "metric": metric, "value": value / len(truth), "groups": name})
    for name, found in groups.items():
        for width, ids in found.items():
            share = float(np.bincount(ids.numpy()[truth]).max() / len(truth))
            rows.append({"level": f"d{width}", "metric": "largest_group", "value": share, "groups": name})
    levels = [ids.numpy() for ids in reversed(groups["imposed"].values())]
    for level, chosen in wrong.items():
        value = mistake_severity(np.concatenate(chosen), truth, levels)
        rows.append({"level": level, "metric": "mistake_severity", "value": value, "groups": "imposed"})
    return rows


def measure(recipe: GPTRecipe, trained: TrainedGPT, system: str) -> list[dict[str, Any]]:
    """All rows of one model."""
    vocabulary = Vocabulary(trained)
    found = vocabulary.clusters()
    rows = [{"system": system, "split": "vocabulary"} | row for row in vocabulary.trees()]
    for name, clusters in found.items():
        if name not in ("dbscan", "hdbscan"):
            rows += [
                {"system": system, "split": "vocabulary", "clusters": name} | row
                for row in vocabulary.agreement(clusters)
            ]
        elif system == PLAIN:
            rows += [
                {"system": name, "split": "vocabulary", "clusters": name} | row
                for row in vocabulary.agreement(clusters)
            ]
    size = trained.model.config.vocab_size
    own = {}
    for width, labels in found["tree"].items():
        own[width] = torch.full((size,), int(labels.max()) + 1)
        own[width][vocabulary.ids] = torch.from_numpy(labels).to(own[width].dtype)
    groups = {"imposed": Taxonomy.from_yaml(GROUPS).group_ids(trained.tokenizer.get_vocab()), "tree": own}
    rows += [{"system": system, "split": "validation"} | row for row in predictions(recipe, trained, groups)]
    for level, value in trained.report["after"].items():
        rows.append({"system": system, "level": level, "split": "validation", "metric": "nll", "value": value})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", type=Path, help="folder with tinyshakespeare/")
    parser.add_argument("--work", default="outputs/gpt_hierarchy", type=Path)
    parser.add_argument("--nested", default="outputs/gpt_shakespeare", type=Path, help="runs of gpt_shakespeare.py")
    parser.add_argument("--seeds", default=5, type=int)
    parser.add_argument(
        "--only", nargs="*", help="runs to make, as plain:0 or ours_imposed, and no report; none: the report"
    )
    parser.add_argument("--out", default="benchmarks/results/gpt_hierarchy.json")
    arguments = parser.parse_args()

    base, training = read_config(CONFIG, texts=[str(arguments.data / "tinyshakespeare" / "input.txt")])
    emergent = replace(base, emergent_widths=list(COUNTS), emergent_clusters=list(COUNTS.values()))
    runs = {
        PLAIN: (base, {}),
        EMERGENT: (emergent, EMERGENCE),
        IMPOSED: (replace(base, hierarchy=os.path.relpath(GROUPS)), {}),
    }

    def folder(name: str, seed: int) -> Path:
        return arguments.nested / f"{NESTED}_s{seed}" if name == PLAIN else arguments.work / f"{name}_s{seed}"

    for seed in range(arguments.seeds):
        for name, (recipe, options) in runs.items():
            if arguments.only is None or {name, f"{name}:{seed}"} & set(arguments.only):
                report = train(folder(name, seed), replace(recipe, seed=seed), training | options).report
                losses = {level: round(value, 4) for level, value in report["after"].items()}
                print(f"{name:>14} seed {seed}", losses, f"{report['seconds']:.0f} s", flush=True)

    if arguments.only:
        return
    report = json.loads(SHAKESPEARE.read_text(encoding="utf-8"))
    known = [row for row in report["rows"] if row["system"] == NESTED and row["metric"] == "nll"]
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for name, (recipe, _) in runs.items():
            if (folder(name, seed) / "training.json").is_file():
                found = measure(recipe, load_run(folder(name, seed)), name)
                rows += [row | {"low": None, "high": None, "seeds": 1, "seed": seed} for row in found]
            elif name == PLAIN:
                rows += [row | {"system": PLAIN} for row in known if row["seed"] == seed]
                print(f"{name} of seed {seed} is not there yet: only its losses are known")
            else:
                print(f"{name} of seed {seed} is not there yet")
    rows += summary(rows) + first_matryoshka_gpt()
    print(write_report(arguments.out, "gpt_hierarchy", rows, training=training))


def first_matryoshka_gpt() -> list[dict[str, Any]]:
    rest = {"split": "vocabulary", "clusters": "final", "metric": "ari_mean", "low": None, "high": None, "seeds": 1}
    return [
        {"system": "first_matryoshka_gpt", "level": level, "value": value} | rest for level, value in FIRST.items()
    ]


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds, and paired differences of the loss; they are printed."""
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        setting = {
            name: row[name] for name in ("system", "level", "split", "metric", "clusters", "groups") if name in row
        }
        values.setdefault(json.dumps(setting), {})[row["seed"]] = row["value"]
    found, losses = [], {}
    for key, by_seed in values.items():
        setting = json.loads(key)
        found.append(setting | seed_interval(list(by_seed.values())) | {"metric": f"{setting['metric']}_mean"})
        if setting["metric"] == "nll":
            losses[setting["system"], setting["level"]] = by_seed
    for (system, level), by_seed in losses.items():
        other = losses.get((PLAIN, level), {})
        paired = [value - other[seed] for seed, value in by_seed.items() if seed in other]
        if system != PLAIN and paired:
            row = {"system": system, "level": level, "split": "validation", "metric": "nll_minus_plain"}
            found.append(row | seed_interval(paired))
    table = []
    for row in found:
        if row["metric"].removesuffix("_mean") not in PRINTED:
            continue
        ends = "" if row["low"] is None else f"[{row['low']:.4f}, {row['high']:.4f}]"
        kind = row.get("clusters") or row.get("groups") or ""
        table.append(
            [row["metric"], row["system"], row["level"], kind, f"{row['value']:.4f}", ends, str(row["seeds"])]
        )
    print(format_rows(["metric", "system", "level", "of", "mean", "95%", "seeds"], sorted(table)))
    return found


if __name__ == "__main__":
    main()
