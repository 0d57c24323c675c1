"""Measured scores in the two forms that the Hub reads."""

import pytest
import yaml
from huggingface_hub import ModelCardData, parse_eval_result_entries

from hf_matryoshka.hub.eval_results import LevelScore, eval_result_files, model_index, repo_scores
from hf_matryoshka.hub.manifest import FamilyLevel, FamilyRepo, Manifest


def manifest(this):
    def score(value, metric="ndcg_at_10"):
        return {"metric": metric, "split": "test", "value": value, "low": value - 0.1, "high": value + 0.1}

    levels = [
        FamilyLevel("d4", 4, {}, [score(0.54), score(0.7, "recall_at_100")]),
        FamilyLevel("d8", 8, {}, [score(0.58)]),
    ]
    repo = FamilyRepo(this, ".", ["d4", "d8"], "remote_code", None, 0.0, {})
    return Manifest("matryoshka_adaptor", this, "text", levels, [repo])


def test_a_level_repo_has_its_own_scores_and_the_full_one_has_all():
    assert [(score.level, score.metric) for score in repo_scores(manifest("full"))] == [
        ("d4", "ndcg_at_10"),
        ("d4", "recall_at_100"),
        ("d8", "ndcg_at_10"),
    ]
    (score,) = repo_scores(manifest("d8"))
    assert (score.level, score.value, score.low, score.high) == ("d8", 0.58, 0.48, 0.58 + 0.1)


def test_files_have_one_level_each_and_the_main_metric():
    files = eval_result_files(repo_scores(manifest("full")), dataset_id="mteb/scifact", name="SciFact")
    assert list(files) == [".eval_results/SciFact_test_d4.yaml", ".eval_results/SciFact_test_d8.yaml"]
    assert files[".eval_results/SciFact_test_d4.yaml"] == (
        "- dataset:\n"
        "    id: mteb/scifact\n"
        "    task_id: SciFact_default_test\n"
        "  value: 54.0\n"
        "  notes: ndcg_at_10 of the level d4, 95% interval 44 to 64\n"
    )
    for text in files.values():
        (entry,) = parse_eval_result_entries(yaml.safe_load(text))
        assert (entry.dataset_id, entry.task_id, entry.date) == ("mteb/scifact", "SciFact_default_test", None)


def test_names_with_other_characters_give_one_file_below_the_folder():
    scores = [LevelScore("w0.5-h6", "accuracy", "../test", 0.5)]
    assert list(eval_result_files(scores, dataset_id="me/data", name="my data/set")) == [
        ".eval_results/my-data-set_..-test_w0.5-h6.yaml"
    ]


@pytest.mark.parametrize(
    "metric, factor",
    [
        ("ndcg_at_10", 100),
        ("cosine_spearman", 100),
        ("cosine_accuracy@1", 100),
        ("max_ap", 100),
        ("nll", 1),
        ("mape", 1),
        ("perplexity", 1),
    ],
)
def test_only_shares_become_percentages(metric, factor):
    (text,) = eval_result_files([LevelScore("d4", metric, "test", 0.25)], dataset_id="me/data", name="data").values()
    (entry,) = yaml.safe_load(text)
    assert entry["value"] == 0.25 * factor
    assert entry["notes"] == f"{metric} of the level d4"


def test_model_index_keeps_the_values_and_names_the_levels():
    results = model_index(
        repo_scores(manifest("full")), dataset_id="mteb/scifact", name="SciFact", task="text-retrieval"
    )
    (entry,) = ModelCardData(model_name="x", eval_results=results).to_dict()["model-index"]
    (result,) = entry["results"]
    assert result["task"] == {"type": "text-retrieval"}
    assert result["dataset"] == {"name": "SciFact", "type": "mteb/scifact", "split": "test"}
    assert result["metrics"] == [
        {"type": "ndcg_at_10", "value": 0.54, "name": "ndcg_at_10 of d4"},
        {"type": "recall_at_100", "value": 0.7, "name": "recall_at_100 of d4"},
        {"type": "ndcg_at_10", "value": 0.58, "name": "ndcg_at_10 of d8"},
    ]
    (result, *_) = model_index([LevelScore("d4", "f1", "dev", 0.5)], dataset_id=None, name="my data", task="t")
    assert (result.dataset_type, result.dataset_name) == ("my-data", "my data")
