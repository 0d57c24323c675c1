"""The names that every command writes with `--json`, on which scripts may rely."""

ROW = {"system", "level", "split", "metric", "value", "low", "high"}
TRAINING = {"model", "recipe", "training", "steps", "seconds"}

# A set: an object that has at least these names. A list with one set: such objects. Under "*": whatever the names are.
DOCUMENTS = {
    ("ablate",): {"out", "rows"},
    ("bench", "gpt"): {"generate", "rows"},
    ("bench", "mamba"): [ROW],
    ("certify",): {"folder", "chain", "pairs", "violations", "violations_before", "certified"},
    ("combine",): {"model", "parts", "hidden_size"},
    ("cosine-maps",): {"picture"},
    ("dendrograms",): {"picture"},
    ("doctor",): {"ok", "packages", "machine", "chromium", "caches", "hub"},
    ("embed",): {"output", "vectors", "dim"},
    ("evaluate",): {"*": [ROW]},
    ("export",): {"*": {"folder", "form", "max_difference"}},
    ("family", "show"): {"levels", "matryoshka_dims", "base_model"},
    ("fold-glue",): {"model"},
    ("frontier",): [{"level", "dim", "retained"}],
    ("optimize",): {"output", "repo_id", "stages", "diagnostics"},
    ("pack",): {"output", "num_documents", "num_tokens", "num_rows", "max_length", "num_empty"},
    ("push",): {"dry_run", "collection", "repos"},
    ("quickstart",): {"folder", "levels", "full", "results", "pushed", "collection", "curves"},
    ("select",): {"level", "dim", "quality", "cost"},
    ("space",): {"folder", "levels", "texts", "bytes", "repo_id", "commit"},
    ("train", "adaptor"): {"model", "stages", "recipe", "training"},
    ("train", "delta"): TRAINING,
    ("train", "fractal"): TRAINING,
    ("train", "funnel"): TRAINING | {"parameters"},
    ("train", "gpt"): TRAINING,
    ("train", "mamba"): TRAINING,
}


def check_names(document, expected) -> None:
    """Asserts that a document has the names that it should have."""
    if isinstance(expected, list):
        assert isinstance(document, list) and document
        for item in document:
            check_names(item, expected[0])
    elif isinstance(expected, dict):
        assert isinstance(document, dict) and document
        for item in document.values():
            check_names(item, expected["*"])
    else:
        assert expected <= set(document), expected - set(document)
