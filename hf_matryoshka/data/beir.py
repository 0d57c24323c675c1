"""Folders in the format of BEIR (Thakur et al., arXiv 2104.08663): corpus, queries and qrels as plain files."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from .files import write_beside
from .lines import read_lines
from .retrieval import Qrels, RetrievalDataset


def load_beir(folder: str | Path) -> RetrievalDataset:
    """Reads a BEIR folder: `corpus.jsonl`, `queries.jsonl` (either may be `.gz`) and `qrels/<split>.tsv`.

    Args:
        folder (`str` or `Path`):
            The folder. Its name becomes the name of the data set.

    Returns:
        [`RetrievalDataset`]: documents and queries in file order, one entry of `qrels` for each `.tsv` file.

    Raises:
        FileNotFoundError: if the folder or one of its parts is missing.
        ValueError: if a line cannot be read, or if the judgements name unknown documents or queries.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no BEIR folder at {folder}; it must hold corpus.jsonl, queries.jsonl and qrels/<split>.tsv"
        )
    corpus_file = _find(folder, "corpus.jsonl")
    queries_file = _find(folder, "queries.jsonl")
    qrels_files = sorted((folder / "qrels").glob("*.tsv"))
    if not qrels_files:
        raise FileNotFoundError(
            f"{folder} has no qrels/<split>.tsv; a BEIR folder needs at least one, such as test.tsv"
        )

    corpus_ids, titles, texts = [], [], []
    for identifier, record in _records(corpus_file):
        corpus_ids.append(identifier)
        titles.append(record.get("title") or "")
        texts.append(record["text"])
    query_ids, queries = [], []
    for identifier, record in _records(queries_file):
        query_ids.append(identifier)
        queries.append(record["text"])
    return RetrievalDataset(
        name=folder.resolve().name,
        corpus_ids=corpus_ids,
        titles=titles,
        texts=texts,
        query_ids=query_ids,
        queries=queries,
        qrels={path.stem: _read_qrels(path) for path in qrels_files},
    )


def save_beir(dataset: RetrievalDataset, folder: str | Path) -> None:
    """Writes `dataset` as a BEIR folder. The folder appears whole or not at all.

    Args:
        dataset ([`RetrievalDataset`]):
            What to write.
        folder (`str` or `Path`):
            A folder that is empty or does not exist yet.

    Raises:
        FileExistsError: if `folder` already holds something.
        OSError: if it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder} already exists and is not an empty folder; give a new folder")
    with write_beside(folder) as temporary:
        (temporary / "qrels").mkdir(parents=True)
        corpus = zip(dataset.corpus_ids, dataset.titles, dataset.texts, strict=True)
        _write_jsonl(
            temporary / "corpus.jsonl", ({"_id": i, "title": title, "text": text} for i, title, text in corpus)
        )
        queries = zip(dataset.query_ids, dataset.queries, strict=True)
        _write_jsonl(temporary / "queries.jsonl", ({"_id": i, "text": text} for i, text in queries))
        for split, qrels in dataset.qrels.items():
            with open(temporary / "qrels" / f"{split}.tsv", "w", encoding="utf-8", newline="") as file:
                file.write("query-id\tcorpus-id\tscore\n")
                file.writelines(f"{q}\t{d}\t{grade}\n" for q, grades in qrels.items() for d, grade in grades.items())


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} has no {name} and no {name}.gz; a BEIR folder needs one of them")


def _records(path: Path) -> Iterator[tuple[str, dict]]:
    for number, line in read_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            said = getattr(error, "msg", "too deep")
            raise ValueError(f"{path} line {number} is not JSON ({said}); each line must be one object") from error
        if not (isinstance(record, dict) and "_id" in record and isinstance(record.get("text"), str)):
            raise ValueError(f'{path} line {number} must be an object with "_id" and a string "text"')
        if not isinstance(record.get("title") or "", str):
            raise ValueError(f'{path} line {number} has a "title" that is no string')
        if re.search("[\ud800-\udfff]", f"{record.get('title')} {record['text']}"):
            raise ValueError(f"{path} line {number} has half of a character, which no tokenizer reads; take it out")
        yield str(record["_id"]), record


def _read_qrels(path: Path) -> Qrels:
    qrels: Qrels = {}
    for number, line in read_lines(path):
        row = line.split("\t")
        if number == 1 and row[-1].strip() == "score":
            continue
        try:
            query, document, grade = row
            qrels.setdefault(query, {})[document] = int(grade)
        except ValueError:
            raise ValueError(
                f"{path} line {number} must be query id, document id and an integer score, separated by tabs; "
                f"got {line!r}"
            ) from None
    return qrels


def _write_jsonl(path: Path, records: Iterator[dict]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
