"""Guards of the layout: what is installed, and what a modeling file may do."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hf_matryoshka


ROOT = Path(__file__).resolve().parents[1]
MODELING = sorted(path for path in (ROOT / "modeling").glob("*.py") if path.name != "__init__.py")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETTINGS = PYPROJECT["tool"]["setuptools"]
FOLDERS = {"modeling": "hf_matryoshka.modeling", "trainers": "hf_matryoshka.trainers"}
THIRD_PARTIES = {"torch", "transformers", "huggingface_hub", "safetensors", "sentence_transformers"}
# The same expression by which transformers finds what to copy next to a modeling file.
RELATIVE_IMPORT = re.compile(r"^\s*from\s+\.(\S+)\s+import", re.MULTILINE)


def test_every_package_is_listed():
    found = {"hf_matryoshka.hub_cards"}
    for top in ("hf_matryoshka", *FOLDERS):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = list(init.parent.relative_to(ROOT).parts)
            found.add(".".join([FOLDERS.get(parts[0], parts[0]), *parts[1:]]))
    listed = set(SETTINGS["packages"])
    # Folders without an `__init__.py` hold the metrics that `evaluate` loads by path.
    metrics = {name for name in listed if name.startswith("hf_matryoshka.evaluation.metrics.")}
    assert listed - metrics == found
    for name in metrics:
        assert (ROOT / name.replace(".", "/") / f"{name.split('.')[-1]}.py").is_file()


def test_every_file_of_a_package_is_importable_python_of_reasonable_length():
    lengths = {}
    for top in ("hf_matryoshka", "modeling", "trainers", "benchmarks", "tests"):
        for path in (ROOT / top).rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            ast.parse(source)
            lengths[path] = source.count("\n")
    assert max(lengths.values()) <= 900
    assert sorted(lengths.values())[len(lengths) // 2] <= 150


@pytest.mark.parametrize("path", MODELING, ids=lambda path: path.name)
def test_modeling_files_can_be_copied_to_a_repo(path):
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module.split(".")[0]]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1 and node.module and "." not in node.module, "only `from .sibling import X`"
            assert (ROOT / "modeling" / f"{node.module}.py").is_file()
            continue
        else:
            continue
        for name in names:
            assert name in THIRD_PARTIES or name in sys.stdlib_module_names, name
    in_code = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.level}
    assert set(RELATIVE_IMPORT.findall(source)) == in_code, "a line of a docstring reads as a relative import"


def test_the_rooms_import_one_way():
    """Data flows one way: a lower room never imports a higher one."""
    allowed = {
        "modeling": set(),
        "trainers": {"modeling"},
        "data": {"modeling"},
        "surgery": {"modeling", "data"},
        "lsbo": {"modeling", "data"},
        "evaluation": {"modeling", "data"},
        "hub": {"modeling", "data", "evaluation", "hub_cards"},
        "recipes": {"modeling", "data", "trainers", "surgery", "evaluation", "hub", "lsbo"},
        "cli": {"modeling", "data", "trainers", "surgery", "evaluation", "hub", "lsbo", "recipes"},
    }
    for room, others in allowed.items():
        folder = ROOT / room if room in FOLDERS else ROOT / "hf_matryoshka" / room
        for path in folder.rglob("*.py"):
            depth = len(path.relative_to(folder).parts)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level == depth + 1 and node.module:
                    assert node.module.split(".")[0] in others, f"{path.name}: {node.module}"


def test_type_checkers_see_what_is_imported_lazily():
    stub = ast.parse((ROOT / "hf_matryoshka" / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    # Only `import X as X` gives a name to others.
    seen = {alias.asname: node.module for node in imports for alias in node.names if alias.name == alias.asname}
    assert seen == hf_matryoshka._EXPORTS


def test_the_package_is_light_and_takes_no_generic_names():
    code = (
        "import sys, importlib.util, hf_matryoshka\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "import hf_matryoshka.cli.app\n"
        "assert 'torch' not in sys.modules\n"
        "sys.path = [entry for entry in sys.path if entry not in ('', sys.argv[1])]\n"
        "print([name for name in ('modeling', 'trainers', 'hub_cards') if importlib.util.find_spec(name)])\n"
        "for name in hf_matryoshka.__all__:\n"
        "    getattr(hf_matryoshka, name)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(ROOT)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


def test_the_wheel_saves_self_contained_repos(wheel_site, tmp_path):
    """The built wheel, away from the checkout, has the metric folders, and a model saved from it carries its code."""
    assert {path.name for path in wheel_site.iterdir() if path.suffix != ".dist-info"} == {"hf_matryoshka"}
    metrics = wheel_site / "hf_matryoshka" / "evaluation" / "metrics"
    assert (metrics / "autc" / "requirements.txt").is_file()
    assert (wheel_site / "hf_matryoshka" / "__init__.pyi").is_file()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import hf_matryoshka\n"
        "assert hf_matryoshka.__file__.startswith(sys.argv[1])\n"
        "from hf_matryoshka import MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel\n"
        "MatryoshkaAdaptorModel(MatryoshkaAdaptorConfig(embedding_dim=32)).save_pretrained(sys.argv[2])\n"
    )
    saved = tmp_path / "saved"
    run = subprocess.run(
        [sys.executable, "-c", code, str(wheel_site), str(saved)], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    needed = {"configuration_matryoshka_adaptor.py", "modeling_matryoshka_adaptor.py", "levels.py", "nested_layers.py"}
    needed |= {"nested_model.py", "level_checkpoints.py", "level_files.py", "level_shards.py", "model_inputs.py"}
    assert needed <= {path.name for path in saved.iterdir()}


def test_every_direct_dependency_is_reviewed():
    """The page of security has each with what it may touch and the version that was read, one that is admitted."""
    project = PYPROJECT["project"]
    lines = [*project["dependencies"], *PYPROJECT["build-system"]["requires"]]
    lines += [line for extra in project["optional-dependencies"].values() for line in extra]
    ranges = {}
    for requirement in map(Requirement, lines):
        ranges.setdefault(canonicalize_name(requirement.name), []).append(requirement.specifier)
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").partition("## Direct dependencies")[2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"][2:]
    assert [row for row in rows if len(row) != 5 or not all(row)] == []
    names = [canonicalize_name(row[0].partition(" (")[0]) for row in rows]
    assert sorted(names) == sorted(ranges)
    for name, (_, version, *_) in zip(names, rows, strict=True):
        assert all(version in admitted for admitted in ranges[name]), (
            f"{name} {version} is not admitted; review it anew"
        )
