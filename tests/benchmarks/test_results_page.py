"""`benchmarks/RESULTS.md` is made from the committed rows, and README.md and docs/measured/ say what is in them."""

import json
import re

import pytest
from make_results import page, section
from result_rows import Measurement, measurements

from .page_numbers import ROOT, read_tables, unmatched, unmatched_in_sentences


FILES = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs" / "measured").glob("*.md")))
}
TABLES = {
    f"{page}:{table.line}": table for page, text in PAGES.items() for table in read_tables(text) if table.numbers
}
# First cells of rows and heads of columns whose numbers come from somewhere else.
ELSEWHERE = {
    "FLOPs": "beside delta_minilm: macs of a level over those of the full one",
}
# Numbers of sentences that are no value of a row.
DERIVED = {
    "2407.20243": "the number of a paper",
    "2410.06718": "the number of a paper",
    "0.92": "seconds of the nested run over those of the three models",
    "1.06": "millions of parameters",
    "1.59": "seconds of plain decoding over those with oneDNN and a draft",
}
ROW = {"system": "ours", "level": "d8", "split": "test", "metric": "nll", "value": 2.0, "low": None, "high": None}


def test_the_page_is_that_of_the_committed_rows():
    assert RESULTS.read_text(encoding="utf-8") == page(FILES), (
        "benchmarks/RESULTS.md is not that of benchmarks/results: run `python benchmarks/make_results.py`, commit both"
    )


def test_links_to_the_page_lead_to_sections():
    headings = re.findall(r"^#+ (.+)$", RESULTS.read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert {file.stem for file in FILES} <= anchors
    for name in ("README.md", *(path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md"))):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert set(re.findall(r"benchmarks/RESULTS\.md#([\w-]+)", text)) <= anchors, name


@pytest.mark.parametrize("place", TABLES)
def test_numbers_in_tables_are_in_the_rows(place):
    table = TABLES[place]
    assert table.sources, f"{place}: no link to rows beside this table"
    missing = unmatched(table, ELSEWHERE)
    assert not missing, f"not in the rows of {', '.join(table.sources)}: {missing}"


def test_numbers_in_sentences_are_in_the_rows():
    found = [f"{page}:{one}" for page, text in PAGES.items() for one in unmatched_in_sentences(text)]
    numbers = {one.partition(": ")[2] for one in found}
    missing = [one for one in found if one.partition(": ")[2] not in DERIVED]
    assert not missing, f"in no row that the block around it links to, and not in DERIVED: {missing}"
    assert set(DERIVED) <= numbers, f"no longer there: {set(DERIVED) - numbers}"


def test_numbers_of_sentences_that_are_in_no_row_are_named():
    text = "# T\n\nSee [rows](benchmarks/results/delta_nested.json): 3.34, 0.128 [+0.086, +0.170], 3.99 and `1.23`.\n"
    assert unmatched_in_sentences(text + "| 9.87 |\n\n```\n6.54\n```\n\n# Next\n\n0.128\n") == ["3: 3.99", "12: 0.128"]


def test_the_pages_name_every_source_that_is_elsewhere():
    names = {cell for table in TABLES.values() for cell in (*table.header, *(row[0] for row in table.rows))}
    assert set(ELSEWHERE) <= names and len(TABLES) > 10


def test_numbers_that_are_in_no_row_or_of_others_are_named():
    head = "**A.** See [rows](benchmarks/results/delta_nested.json).\n\n| | ½ | ¾ | seconds |\n|---|---|---|---|\n"
    (table,) = read_tables(f"# Title\n\n{head}| independent | 3.41 | 3.28 | |\n| **ours** | 3.34 | **3.14** | |\n")
    assert (table.line, table.sources, unmatched(table, {})) == (5, ["delta_nested"], [])
    (table,) = read_tables(f"{head}| sliced | 4.76 | 3.82 | |\n| other | 4.76 | 1.88 | 347.2 |\n")
    # 3.82 is not 3.81; 1.88 is nowhere.
    assert unmatched(table, {}) == ["5: 3.82 (sliced, ¾)", "6: 1.88 (other, ¾)", "6: 347.2 (other, seconds)"]
    assert unmatched(table, {"other": "elsewhere"}) == ["5: 3.82 (sliced, ¾)"]
    (table,) = read_tables(f"{head}| difference | −0.066 [−0.153, +0.022] | −0.145 [−0.185, −0.149] | |\n")
    # The end of another interval.
    assert unmatched(table, {}) == ["5: -0.145 [-0.185, -0.149] (difference, ¾)"]
    (table,) = read_tables("# No links\n\n| | nll |\n|---|---|\n| ours | 3.34 |\n")
    assert table.sources == [] and unmatched(table, {}) == ["5: 3.34 (ours, nll)"]


def test_rows_of_seeds_become_one_number():
    rows = [ROW | {"seed": seed, "value": value, "seconds": 10.0 * value} for seed, value in enumerate([2.0, 3.0])]
    (mean, seconds) = measurements(rows)
    assert (mean.metric, mean.value, mean.seeds, mean.beside) == ("nll", 2.5, 2, False)
    assert mean.low < 2 and mean.high > 3
    assert (seconds.metric, seconds.value, seconds.beside) == ("seconds", 25.0, True)
    # The script's own mean, with its interval, is shown instead.
    (shown, _) = measurements([*rows, ROW | {"metric": "nll_mean", "value": 2.5, "low": 1.9, "high": 3.1, "seeds": 2}])
    assert (shown.metric, shown.low, shown.high) == ("nll", 1.9, 3.1)
    # A system that it does not have stays.
    kept = measurements([*rows, ROW | {"system": "rival", "metric": "nll_mean", "value": 1.0, "seeds": 2}])
    assert [(one.place["system"], one.value) for one in kept if not one.beside] == [("ours", 2.5), ("rival", 1.0)]


def test_settings_tell_rows_apart_and_costs_do_not():
    rows = [ROW | {"model": model, "parameters": 5, "gain_over_svd": 0.1, "gain_low": 0.0, "gain_high": 0.2}
            for model in ("bert", "modernbert")]  # fmt: skip
    found = measurements(rows)
    assert [one.place["model"] for one in found if one.metric == "nll"] == ["bert", "modernbert"]
    assert Measurement("parameters", {}, 5, beside=True) in found
    assert next(one for one in found if one.metric == "gain_over_svd").high == 0.2
    with pytest.raises(ValueError, match="nothing tells two rows of nll apart"):
        measurements([ROW, ROW | {"low": 1.0}])


def test_a_section_shows_a_rival_that_is_better():
    rows = [ROW | {"level": level, "system": system, "value": value, "seeds": 1}
            for level in ("d8", "d16") for system, value in (("ours", 2.0), ("rival", 1.25))]  # fmt: skip
    report = {"name": "demo", "date": "2026-01-01", "command": "stsb.py --seeds 1", "threads": 2, "rows": rows}
    report |= {"machine": {"cpu": "x", "cores": 2, "device": "cpu"}, "versions": {"torch": "2.0", "botorch": "0.18"}}
    text = section("demo", json.loads(json.dumps(report)))
    assert "| system | d8 | d16 |\n| --- | --- | --- |\n| ours | 2.000 | 2.000 |\n| rival | 1.250 | 1.250 |" in text
    assert "- `python benchmarks/stsb.py --seeds 1`, 2026-01-01, 2 cores (x), cpu\n- torch 2.0, botorch 0.18\n" in text
    assert "- threads: 2" in text and "### demo: nll" in text
