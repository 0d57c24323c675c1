"""The `hf` command against the local hub, as a user types it."""

import json
import os
import subprocess
import sys


def test_a_repo_from_create_to_delete(hub, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {**hub.environment(), "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "sub").mkdir(parents=True)
    (source / "model.safetensors").write_bytes(b"w" * 5000)
    (source / "sub" / "config.json").write_text("{}")

    def hf(*arguments, status=0):
        command = [sys.executable, "-m", "huggingface_hub.cli.hf", *map(str, arguments)]
        run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == status, run.stderr
        return run.stdout if status == 0 else run.stderr

    assert json.loads(hf("auth", "whoami", "--format", "json"))["user"] == "me"
    hf("repos", "create", "me/x", "--private")
    hf("upload", "me/x", source, ".")
    assert hub.files("me/x")["model.safetensors"] == b"w" * 5000
    info = json.loads(hf("models", "info", "me/x", "--format", "json"))
    assert info["sha"] == hub.commits("me/x")[0].sha and info["private"]
    hf("repos", "tag", "create", "me/x", "v1")
    hf("download", "me/x", "--revision", "v1", "--local-dir", target)
    assert (target / "model.safetensors").read_bytes() == b"w" * 5000 and (target / "sub" / "config.json").is_file()
    made = json.loads(hf("collections", "create", "Family", "--format", "json"))
    hf("collections", "add-item", made["slug"], "me/x", "model")
    assert "me/x" in hf("collections", "info", made["slug"])
    assert "namespace" in hf("repos", "create", "others/x", status=1)
    hf("repos", "delete", "me/x", "--yes")
    assert hub.repos() == []
    assert "not found" in hf("models", "info", "me/x", status=1)
