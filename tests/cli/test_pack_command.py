"""`hf-matryoshka pack` as a user runs it."""

import gzip
import json

from datasets import load_from_disk


def test_pack(command, tiny_sentence_transformer, tmp_path):
    texts = [f"the cat of river {number}" for number in range(60)] + [" "]
    lines = "".join(json.dumps({"body": text}) + "\n" for text in texts)
    (tmp_path / "texts.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    arguments = [tmp_path / "texts.jsonl.gz", tmp_path / "rows", "--tokenizer", tiny_sentence_transformer]
    arguments += ["--max-length", 64, "--num-proc", 2, "--field", "body"]
    status, output, _ = command("pack", *arguments)
    assert status == 0
    assert "60 documents" in output and "1 texts have no token" in output and "Useful tokens: 9" in output
    rows = load_from_disk(tmp_path / "rows")
    assert sum(map(len, rows["seq_lengths"])) == 60

    status, _, error = command("pack", *arguments)
    assert status == 2 and "rows already exists and is not an empty folder" in error
    arguments[1] = tmp_path / "again"
    status, output, _ = command("pack", *arguments, "--json")
    found = json.loads(output)
    assert status == 0 and found["num_rows"] == len(rows) and found["useful_tokens"] > 0.9
    assert load_from_disk(tmp_path / "again").to_dict() == rows.to_dict()


def test_bad_input_is_one_sentence(command, tiny_sentence_transformer, tmp_path):
    def error(content, *options, name="texts.jsonl"):
        (tmp_path / name).write_text(content)
        tokenizer = ["--tokenizer", tiny_sentence_transformer]
        status, _, message = command("pack", tmp_path / name, tmp_path / "rows", *tokenizer, *options)
        assert status == 2 and not (tmp_path / "rows").exists()
        return message.splitlines()[-1]

    good = '{"text": "the cat"}\n'
    assert "texts.jsonl holds no text" in error("\n")
    assert "has 4 tokens, too few for one row of 512; give more text" in error(good)
    # The last line is bad: found before any work.
    assert "line 401 of" in error(good * 400 + "{\n")
    assert "has no text in the field 'body'" in error(good, "--field", "body")
    assert "max_length must be at least 3" in error(good, "--max-length", 1)
    assert "cannot load a tokenizer from 'nobody/nothing'" in error(good, "--tokenizer", "nobody/nothing")
    assert "texts.pdf is neither .txt, .jsonl, .csv nor .tsv" in error(good, name="texts.pdf")
