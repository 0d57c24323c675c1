"""`hf-matryoshka doctor`: what it finds, here and on machines that lack something."""

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import huggingface_hub
import pytest
from packaging.requirements import Requirement

from hf_matryoshka.cli.environment import DEVELOPMENT, EXTRAS


@pytest.fixture
def installed(monkeypatch):
    """Says that other versions are installed; `None` for a package that is not."""
    found = importlib.metadata.version

    def pretend(**versions):
        def version(name):
            if name.replace("-", "_") not in versions:
                return found(name)
            if versions[name.replace("-", "_")] is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name.replace("-", "_")]

        monkeypatch.setattr(importlib.metadata, "version", version)

    return pretend


def diagnosis(command, *arguments, status=0):
    found, output, error = command("doctor", "--json", *arguments)
    assert found == status, error
    return json.loads(output)


def test_everything_required_is_here(command):
    found = diagnosis(command)
    packages = {item["name"]: item for item in found["packages"]}
    assert found["ok"] and packages["torch"]["status"] == packages["python"]["status"] == "ok"
    assert packages["transformers"]["needed"] == "<6,>=5.24" and packages["transformers"]["required"]
    assert packages["onnxruntime"]["purpose"].startswith("ONNX") and not packages["onnxruntime"]["required"]
    assert "pytest" not in packages and packages["vec2text"]["status"] == "elsewhere"
    machine = found["machine"]
    assert machine["cores"] >= 1 and machine["threads"] >= 1 and machine["cpu_bf16"] in (True, False)
    assert all(cache["free_gb"] > 0 and cache["writable"] for cache in found["caches"])
    status, output, error = command("doctor")
    assert (status, error) == (0, "") and "All that is required is here." in output and "Required:" not in output


def test_what_is_missing_or_does_not_fit_is_named_with_a_command(command, installed):
    installed(torch="2.0.1", peft=None, transformers="6.1", onnx=None, onnxruntime=None, gradio="6.31")
    found = diagnosis(command, status=1)
    packages = {item["name"]: item for item in found["packages"]}
    assert not found["ok"]
    assert [packages[name]["status"] for name in ("torch", "peft", "transformers", "onnx", "gradio")] == [
        *("too old", "missing", "not supported", "missing", "ok")
    ]
    assert packages["torch"]["install"] == 'pip install "torch>=2.6"'
    assert packages["onnx"]["install"] == 'pip install "hf-matryoshka[onnx]"' and packages["gradio"]["install"] is None
    status, output, _ = command("doctor")
    assert status == 1 and "too old (needs >=2.6)" in output and 'pip install "peft>=0.21"' in output
    # One command for both.
    assert output.count('pip install "hf-matryoshka[onnx]"') == 1 and output.index("Required:") < output.index(
        "Optional:"
    )
    installed(onnx=None)
    assert diagnosis(command)["ok"]


def test_a_torch_that_does_not_load_and_a_package_that_is_not_installed(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = diagnosis(command, status=1)
    assert "torch does not load" in found["machine"]["error"] and "torch does not load" in command("doctor")[1]
    monkeypatch.undo()

    def metadata(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "metadata", metadata)
    (package,) = diagnosis(command, status=1)["packages"]
    assert package["install"] == "pip install hf-matryoshka"


def test_the_hub_is_asked_only_if_told_to(command, hub, monkeypatch):
    assert diagnosis(command)["hub"] == {
        "endpoint": hub.endpoint,
        "offline_mode": False,
        "token": True,
        "reachable": None,
    }
    assert diagnosis(command, "--online")["hub"]["reachable"] is True
    assert "answers" in command("doctor", "--online")[1]

    def no_session():
        raise ConnectionError("nobody there")

    monkeypatch.setattr(huggingface_hub, "get_session", no_session)
    assert diagnosis(command)["hub"]["reachable"] is None
    found = diagnosis(command, "--online")
    assert found["ok"] and found["hub"]["reachable"] is False and found["hub"]["error"] == "nobody there"


def test_offline_mode_is_said(command):
    hub = diagnosis(command, "--online")["hub"]
    assert hub["offline_mode"] and hub["reachable"] is False and "ffline" in hub["error"]


def test_every_extra_is_known_and_its_packages_are_listed_once(command):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name != DEVELOPMENT}
    assert set(EXTRAS) == set(extras)
    found = [item["name"] for item in diagnosis(command)["packages"] if not item["required"]]
    for name in {Requirement(line).name for lines in extras.values() for line in lines}:
        assert found.count(name) == 1, name


def test_an_extra_that_nobody_has_described_is_listed(command, monkeypatch, installed):
    monkeypatch.delitem(EXTRAS, "docs")
    installed(mkdocs=None)
    packages = {item["name"]: item for item in diagnosis(command)["packages"]}
    assert packages["mkdocs"]["install"] == 'pip install "hf-matryoshka[docs]"'
    assert packages["mkdocs"]["purpose"] == "the extra `docs`"


def test_a_chromium_is_looked_for_on_the_path(command, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert diagnosis(command)["chromium"] is None
    assert "Chromium: none on the PATH, as chromium-headless-shell, chromium or" in command("doctor")[1]
    (tmp_path / "chromium").touch(mode=0o755)
    assert diagnosis(command)["chromium"] == str(tmp_path / "chromium")
    assert f"Chromium: {tmp_path / 'chromium'}" in command("doctor")[1]


def test_it_runs_where_nothing_but_the_command_line_is_installed():
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'numpy', 'pyarrow', 'datasets', 'huggingface_hub', 'tqdm'):\n"
        "    sys.modules[name] = None\n"
        "sys.argv = ['hf-matryoshka', 'doctor']\n"
        "from hf_matryoshka.cli import main\n"
        "main()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1 and "torch does not load" in run.stdout and run.stderr == "", run.stderr
    assert "huggingface_hub does not load" in run.stdout
