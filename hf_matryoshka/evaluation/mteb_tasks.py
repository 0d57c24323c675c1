"""Data at hand behind MTEB's own task objects.

A task that MTEB knows keeps its metadata, so that its results compare and merge with public ones. Nothing here needs a
network.
"""

import csv
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import mteb
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskClassification, AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.task_metadata import TaskMetadata

from ..data.retrieval import RetrievalDataset


Task = TypeVar("Task", bound=AbsTask)


@overload
def get_mteb_task(name: str) -> AbsTask: ...
@overload
def get_mteb_task(name: str, kind: type[Task]) -> Task: ...
def get_mteb_task(name: str, kind: type[AbsTask] = AbsTask) -> AbsTask:
    """A task of MTEB by name.

    Args:
        name (`str`): For example `"SciFact"`.
        kind (`type`, *optional*): The task type that it must be.

    Returns:
        `AbsTask`: A new task object, without data.

    Raises:
        ValueError: If MTEB has no such task, or it is of another type.
    """
    try:
        task = mteb.get_task(name)
    except KeyError as error:
        raise ValueError(f"mteb has no task {name!r}; `mteb.get_tasks()` lists those it has") from error
    if not isinstance(task, kind):
        raise ValueError(f"the mteb task {name!r} is of type {task.metadata.type}, not {kind.__name__}")
    if task.metadata.is_multilingual:
        raise ValueError(f"the mteb task {name!r} has several subsets; only tasks with one subset take local data")
    return task


def retrieval_task(
    name_or_task: str | AbsTaskRetrieval, dataset: RetrievalDataset, split: str = "test"
) -> AbsTaskRetrieval:
    """A retrieval task of MTEB over a data set at hand, with its graded relevance.

    Args:
        name_or_task (`str` or `AbsTaskRetrieval`): A task of MTEB or its name, for example `"SciFact"`; a name that
            MTEB does not know gives a task of its own.
        dataset ([`~data.retrieval.RetrievalDataset`]): The data.
        split (`str`, *optional*, defaults to `"test"`): Which qrels to evaluate.

    Returns:
        `AbsTaskRetrieval`: The task, its data loaded, evaluating that split only.

    Raises:
        ValueError: If the split does not exist or the task is no retrieval task.
    """
    if split not in dataset.qrels:
        known = ", ".join(sorted(dataset.qrels)) or "none"
        raise ValueError(f"split {split!r} does not exist in {dataset.name}; its splits are: {known}")
    if not isinstance(name_or_task, str):
        task = name_or_task
    elif name_or_task in {known.metadata.name for known in mteb.get_tasks(task_types=["Retrieval"])}:
        task = get_mteb_task(name_or_task, AbsTaskRetrieval)
    else:
        task = _own_retrieval_task(name_or_task, dataset, split)
    qrels = dataset.qrels[split]
    queries = [(key, text) for key, text in zip(dataset.query_ids, dataset.queries, strict=True) if key in qrels]
    data = {
        "corpus": Dataset.from_dict({"id": dataset.corpus_ids, "title": dataset.titles, "text": dataset.texts}),
        "queries": Dataset.from_dict({"id": [key for key, _ in queries], "text": [text for _, text in queries]}),
        "relevant_docs": {key: dict(qrels[key]) for key, _ in queries},
        "top_ranked": None,
    }
    return _filled(task, {"default": {split: data}}, split)


def sts_task(name: str, folder: str | os.PathLike, split: str = "test") -> AbsTaskSTS:
    """A sentence-similarity task of MTEB over a folder of CSV files.

    Args:
        name (`str`): A task of MTEB, for example `"STSBenchmark"`.
        folder (`str` or `os.PathLike`): Holds a file whose name ends in `<split>.csv` (for the validation split also
            `dev.csv`), with the columns sentence 1, sentence 2, score; a header line is optional.
        split (`str`, *optional*, defaults to `"test"`): The split to evaluate.

    Returns:
        `AbsTaskSTS`: The task, its data loaded, evaluating that split only.

    Raises:
        FileNotFoundError: If there is not exactly one such file.
        ValueError: If MTEB has no such task or a row is not two sentences and a number.
    """
    task = get_mteb_task(name, AbsTaskSTS)
    path = _split_file(folder, split)
    rows = _read_csv(path)
    if rows and not _is_number(rows[0][-1]):
        rows = rows[1:]
    for number, row in enumerate(rows, start=1):
        if len(row) != 3 or not _is_number(row[2]):
            raise ValueError(f"row {number} of {path} is not sentence1,sentence2,score: {row!r}")
    first, second, scores = zip(*rows, strict=True)
    columns = dict(zip(task.column_names, (list(first), list(second)), strict=True))
    data = Dataset.from_dict({**columns, "score": [float(score) for score in scores]})
    return _filled(task, DatasetDict({split: data}), split)


def classification_task(name: str, folder: str | os.PathLike, split: str = "test") -> AbsTaskClassification:
    """A classification task of MTEB over a folder of CSV files.

    Args:
        name (`str`): A task of MTEB, for example `"Banking77Classification"`.
        folder (`str` or `os.PathLike`): Holds a file for the training split and one for `split`, whose names end in
            `<split>.csv`, with a header line and the columns text and label (or category).
        split (`str`, *optional*, defaults to `"test"`): The split to evaluate.

    Returns:
        `AbsTaskClassification`: The task, its data loaded, evaluating that split only.

    Raises:
        FileNotFoundError: If there is not exactly one file for each split.
        ValueError: If MTEB has no such task, or a file lacks the columns.
    """
    task = get_mteb_task(name, AbsTaskClassification)
    tables = {part: _read_labelled(_split_file(folder, part)) for part in (task.train_split, split)}
    names = sorted({label for _, labels in tables.values() for label in labels})
    index = {label: number for number, label in enumerate(names)}
    data = {
        part: Dataset.from_dict(
            {task.input_column_name: texts, task.label_column_name: [index[label] for label in labels]}
        )
        for part, (texts, labels) in tables.items()
    }
    return _filled(task, DatasetDict(data), split)


def _filled(task: Task, data: DatasetDict | dict[str, Any], split: str) -> Task:
    task.dataset = data
    task.data_loaded = True
    return task.filter_eval_splits([split])


def _own_retrieval_task(name: str, dataset: RetrievalDataset, split: str) -> AbsTaskRetrieval:
    # The content is the revision: results of two data sets of one name never meet in mteb's cache.
    digest = hashlib.sha256()
    parts: Sequence[Sequence[str]] = (dataset.corpus_ids, dataset.documents(), dataset.query_ids, dataset.queries)
    for part in parts:
        digest.update(repr(list(part)).encode())
    digest.update(repr(sorted((key, sorted(grades.items())) for key, grades in dataset.qrels[split].items())).encode())
    metadata = TaskMetadata(
        name=name,
        description=f"{len(dataset.query_ids)} queries over {len(dataset.corpus_ids)} documents, from local files.",
        dataset={"path": f"local/{name}", "revision": digest.hexdigest()[:40]},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=[split],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )
    return type(name, (AbsTaskRetrieval,), {"metadata": metadata, "__module__": __name__})()


def _split_file(folder: str | os.PathLike, split: str) -> Path:
    endings = {"validation": ("validation.csv", "dev.csv")}.get(split, (f"{split}.csv",))
    found = sorted(path for ending in endings for path in Path(folder).glob(f"*{ending}"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise FileNotFoundError(f"{folder} must hold exactly one file *{endings[0]}, but has: {names}")
    return found[0]


def _read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise ValueError(f"{path} is empty")
    return rows


def _read_labelled(path: Path) -> tuple[list[str], list[str]]:
    header, *rows = _read_csv(path)
    label = next((column for column in ("label", "category") if column in header), None)
    if "text" not in header or label is None:
        raise ValueError(f"{path} must have the columns text and label (or category), but has {', '.join(header)}")
    return [row[header.index("text")] for row in rows], [row[header.index(label)] for row in rows]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
