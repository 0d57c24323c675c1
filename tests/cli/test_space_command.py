"""`space` from its flags; what it writes is in `tests/hub/test_space.py`."""

import json

from hf_matryoshka import MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel, export_level


def test_space(command, tiny_sentence_transformer, tmp_path):
    adaptor = MatryoshkaAdaptorModel(MatryoshkaAdaptorConfig(embedding_dim=32, matryoshka_dims=[4, 8, 32])).eval()
    export_level(adaptor, "d32", tmp_path / "d32", base_model=tiny_sentence_transformer)
    corpus = tmp_path / "corpus.csv"
    corpus.write_text("title,text\na cat,the cat of the city\na dog,the dog of the river\n")
    words = ("space", tmp_path / "d32", tmp_path / "space", "--corpus", corpus)
    status, output, error = command(*words, "--levels", "d4,d32", "--field", "title", "--example", "a cat", "--json")
    found = json.loads(output)
    assert status == 0 and found["levels"] == ["d4", "d32"] and found["texts"] == 2 and found["repo_id"] is None
    settings = json.loads((tmp_path / "space" / "space.json").read_text())
    assert settings["examples"] == ["a cat"] and '"a dog"' in (tmp_path / "space" / "corpus.jsonl").read_text()
    status, output, _ = command(*words, "--overwrite")
    assert status == 0 and "2 texts, levels d4, d8, d32" in output and "app.py" in output
    for arguments, message in [
        (words, "holds a Space already; name a new folder, or replace it with --overwrite"),
        ((*words[:2], tmp_path / "new", "--corpus", tmp_path / "none.txt"), "none.txt does not exist"),
        ((*words[:2], tmp_path / "new", *words[3:], "--field", "body"), "has no column 'body'"),
        (words[:3], "Missing option '--corpus'"),
    ]:
        status, output, error = command(*arguments)
        assert status == 2 and output == "" and message in error and error.count("\n") == 1
