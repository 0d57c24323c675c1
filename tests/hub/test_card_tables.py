"""Tables of the cards."""

from hf_matryoshka.evaluation.curve import Curve, LevelPoint
from hf_matryoshka.hub.card_tables import family_table, quality_tables
from hf_matryoshka.hub.manifest import FamilyLevel, FamilyRepo, Manifest


def curve(system, values, interval=False, baselines=None):
    points = [
        LevelPoint(f"d{dim}", dim, value, *((value - 0.1, value + 0.1) if interval else ()))
        for dim, value in values.items()
    ]
    return Curve(points, "ndcg_at_10", "test", system, baselines or {})


def family(this, forms, quality=True):
    scores = [{"metric": "ndcg_at_10", "split": "test", "value": 0.5, "low": None, "high": None}] if quality else []
    levels = [
        FamilyLevel("d4", 4, {"macs": 3600.0, "parameters": 4000, "bytes_per_vector": 16, "latency_ms": 0.1}, scores),
        FamilyLevel("d32", 32, {"macs": 28800.0, "bytes_per_vector": 128}, []),
    ]
    repos = [FamilyRepo(name, f"../{name}", ["d4"], form, None, 0.0, {}) for name, form in forms.items()]
    return Manifest("matryoshka_adaptor", this, "text", levels, repos)


def test_the_family_is_linked_and_this_level_is_bold():
    table = family_table(family("d4", {"d4": "stock_padded", "d32": "remote_code", "full": "remote_code"}))
    key = ("ndcg_at_10", "test")
    assert table["columns"] == ["level", "dim", "bytes_per_vector", "parameters", "macs", key, "form"]
    assert table["rows"] == [
        ["**d4**", "**4**", "**16**", "**4,000**", "**3,600**", "**0.500**", "**stock, zero-padded**"],
        ["[d32](../d32)", "32", "128", "", "28,800", "", "remote code"],
    ]
    assert not table["intervals"]


def test_the_repo_that_holds_all_levels_may_be_alone():
    table = family_table(family("full", {"full": "remote_code"}, quality=False))
    assert table["columns"] == ["level", "dim", "bytes_per_vector", "parameters", "macs"]
    assert table["rows"] == [["d4", "4", "16", "4,000", "3,600"], ["d32", "32", "128", "", "28,800"]]


def test_budgets_have_columns_and_flops_replace_multiply_adds():
    levels = [
        FamilyLevel(
            "m0.375-h1-d2", None, {"parameters": 40, "macs": 5, "flops_per_token": 10}, [], [[0.25, 0.5], 1, 2]
        ),
        FamilyLevel("w1.0-h2-d3", None, {"parameters": 90, "macs": 50, "flops_per_token": 100}, [], [1, 2, 3]),
    ]
    table = family_table(Manifest("delta_bert", "full", "text", levels, []))
    assert table["columns"] == ["level", "width", "heads", "layers", "parameters", "flops_per_token"]
    assert table["rows"] == [
        ["m0.375-h1-d2", "0.25, 0.5", "1", "2", "40", "10"],
        ["w1.0-h2-d3", "1", "2", "3", "90", "100"],
    ]


def test_quality_has_one_column_a_system():
    ours = curve("ours", {4: 0.54, 8: 0.58}, interval=True, baselines={"svd": curve("svd", {4: 0.14, 8: 0.18})})
    (table,) = quality_tables([ours], "d8")
    assert (table["metric"], table["split"], table["intervals"]) == ("ndcg_at_10", "test", True)
    assert table["systems"] == ["ours", "svd"]
    assert table["rows"] == [
        ["d4", "0.540 [0.440, 0.640]", "0.140"],
        ["**d8**", "**0.580 [0.480, 0.680]**", "**0.180**"],
    ]


def test_a_level_that_one_system_lacks_leaves_its_cell_empty():
    (table,) = quality_tables([curve("ours", {4: 0.54, 8: 0.58}), curve("int8|4", {4: 0.3})], "d8")
    assert table["systems"] == ["ours", "int8\\|4"]
    assert table["rows"] == [["d4", "0.540", "0.300"], ["**d8**", "**0.580**", ""]]
    assert not table["intervals"]
