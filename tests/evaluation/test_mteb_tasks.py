from pathlib import Path

import mteb
import numpy as np
import pytest
from mteb.abstasks import AbsTaskRetrieval
from mteb.models.abs_encoder import AbsEncoder

from hf_matryoshka.data.beir import load_beir
from hf_matryoshka.data.retrieval import RetrievalDataset
from hf_matryoshka.evaluation.mteb_tasks import classification_task, get_mteb_task, retrieval_task, sts_task


SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture
def dataset():
    return RetrievalDataset(
        name="toy",
        corpus_ids=["a", "b", "c"],
        titles=["Title", "", ""],
        texts=["first", "second", "third"],
        query_ids=["q1", "q2", "other"],
        queries=["one", "two", "three"],
        qrels={"test": {"q1": {"a": 2, "b": 1}, "q2": {"c": 0, "b": 3}}, "train": {"other": {"a": 1}}},
    )


class OneHot(AbsEncoder):
    """The documents and queries above as vectors that rank them in a known order."""

    vectors = {
        "Title first": [1, 0, 0],
        "second": [0, 1, 0],
        "third": [0, 0, 1],
        "one": [0.1, 1, 0],
        "two": [0, 0.5, 1],
    }

    mteb_model_meta = mteb.models.ModelMeta.create_empty({"name": "local/one-hot"})

    def encode(self, inputs, **kwargs):
        return np.array([self.vectors[text] for batch in inputs for text in batch["text"]], dtype=np.float32)


def test_a_known_task_keeps_its_metadata_and_takes_the_data(dataset):
    task = retrieval_task("SciFact", dataset)
    public = mteb.get_task("SciFact")
    assert type(task) is type(public)
    assert task.metadata == public.metadata
    assert task.data_loaded
    data = task.dataset["default"]["test"]
    assert data["relevant_docs"] == dataset.qrels["test"]
    assert data["queries"]["id"][:] == ["q1", "q2"]
    assert data["corpus"][0] == {"id": "a", "title": "Title", "text": "first"}


@pytest.mark.parametrize("name", ["SciFact", "Unheard"])
def test_mteb_scores_the_data_with_its_grades(dataset, name):
    result = mteb.evaluate(OneHot(), retrieval_task(name, dataset), cache=None, show_progress_bar=False)
    # q1 ranks b (1), a (2); q2 ranks c (0), b (3)
    expected = [(1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3)), 1 / np.log2(3)]
    assert result.task_results[0].scores["test"][0]["ndcg_at_10"] == pytest.approx(np.mean(expected), abs=1e-5)


def test_an_unknown_name_gets_a_task_whose_revision_is_its_content(dataset):
    task = retrieval_task("Unheard", dataset)
    assert isinstance(task, AbsTaskRetrieval)
    assert task.metadata.name == "Unheard"
    revision = task.metadata.dataset["revision"]
    assert retrieval_task("Unheard", dataset).metadata.dataset["revision"] == revision
    changed = RetrievalDataset(**{**vars(dataset), "texts": ["first", "second", "fourth"]})
    regraded = RetrievalDataset(**{**vars(dataset), "qrels": {"test": {"q1": {"a": 1, "b": 1}}}})
    revisions = {retrieval_task("Unheard", data).metadata.dataset["revision"] for data in (changed, regraded)}
    assert len({revision, *revisions}) == 3


def test_any_split_can_be_evaluated(dataset):
    task = retrieval_task("SciFact", dataset, split="train")
    assert list(task.eval_splits) == ["train"]
    assert task.dataset["default"]["train"]["queries"]["text"][:] == ["three"]
    with pytest.raises(ValueError, match="split 'dev' does not exist in toy; its splits are: test, train"):
        retrieval_task("SciFact", dataset, split="dev")


def test_a_task_object_is_filled(dataset):
    task = mteb.get_task("NFCorpus")
    assert retrieval_task(task, dataset) is task
    assert task.data_loaded


def test_sts_reads_csv_with_and_without_header(tmp_path):
    rows = '"A man, a plan.",A canal.,2.5\nA cat.,A dog.,0.0\n'
    for number, header in enumerate(["", "sentence1,sentence2,score\n"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "stsb-en-test.csv").write_text(header + rows)
        task = sts_task("STSBenchmark", folder)
        assert task.dataset["test"][:] == {
            "sentence1": ["A man, a plan.", "A cat."],
            "sentence2": ["A canal.", "A dog."],
            "score": [2.5, 0.0],
        }
        assert task.metadata == mteb.get_task("STSBenchmark").metadata
        assert list(task.eval_splits) == ["test"]
    (tmp_path / "0" / "stsb-en-dev.csv").write_text(rows)
    assert len(sts_task("STSBenchmark", tmp_path / "0", split="validation").dataset["validation"]) == 2


def test_classification_gives_both_splits_one_numbering(tmp_path):
    (tmp_path / "train.csv").write_text("text,category\nwhere is it,late\nhello,greeting\n")
    (tmp_path / "test.csv").write_text('category,text\nlate,"still, nothing"\n')
    task = classification_task("Banking77Classification", tmp_path)
    assert task.dataset["train"]["label"][:] == [1, 0]
    assert task.dataset["test"][:] == {"text": ["still, nothing"], "label": [1]}
    assert task.data_loaded


def test_bad_files_and_names_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"exactly one file \*test.csv, but has: none"):
        sts_task("STSBenchmark", tmp_path)
    (tmp_path / "test.csv").write_text("a,b,1.0\na,b,high\n")
    with pytest.raises(ValueError, match="row 2 of .*test.csv is not sentence1,sentence2,score"):
        sts_task("STSBenchmark", tmp_path)
    (tmp_path / "train.csv").write_text("text,class\na,b\n")
    with pytest.raises(ValueError, match="train.csv must have the columns text and label .* but has text, class"):
        classification_task("Banking77Classification", tmp_path)
    with pytest.raises(ValueError, match="mteb has no task 'SciFakt'"):
        get_mteb_task("SciFakt")
    with pytest.raises(ValueError, match="'STSBenchmark' is of type STS, not AbsTaskClassification"):
        classification_task("STSBenchmark", tmp_path)
    with pytest.raises(ValueError, match="several subsets"):
        sts_task("STS22", tmp_path)


@pytest.mark.skipif(not (SHARED / "scifact").is_dir(), reason="shared/data/scifact is not on this machine")
def test_real_scifact_fills_the_public_task():
    data = retrieval_task("SciFact", load_beir(SHARED / "scifact")).dataset["default"]["test"]
    assert (len(data["corpus"]), len(data["queries"])) == (5183, 300)
    assert sum(map(len, data["relevant_docs"].values())) == 339


@pytest.mark.skipif(not (SHARED / "banking77").is_dir(), reason="shared/data/banking77 is not on this machine")
def test_real_banking77_fills_the_public_task():
    task = classification_task("Banking77Classification", SHARED / "banking77")
    assert (len(task.dataset["train"]), len(task.dataset["test"])) == (10003, 3080)
    assert len(set(task.dataset["train"]["label"])) == 77


@pytest.mark.skipif(not (SHARED / "stsb").is_dir(), reason="shared/data/stsb is not on this machine")
def test_real_stsb_fills_the_public_task():
    assert len(sts_task("STSBenchmark", SHARED / "stsb").dataset["test"]) == 1379
