"""No code block of README.md, docs/ and examples/ may rot: Python runs, and so do the command lines of README.md; the
others parse, YAML files are accepted, links lead somewhere, and the site builds.

What a page's Python reads is in `tests/documentation/world.py`; all blocks of a page run in one process, in their
order, on small data. `tests/documentation/blocks.py` says how to mark a block that cannot.
"""

import ast
import contextlib
import re
import shutil
import sys
import traceback
from pathlib import Path

import pytest

from .documentation.blocks import BLOCKS, PAGES, ROOT, SITE_PAGES, check_imports, command_lines, inline_commands
from .documentation.commands import parse, stop_before_work
from .documentation.shell import build_command_inputs, run_lines, shell_lines
from .documentation.world import build_inputs, hurry, install_examples, page_names, readme_names


PYTHON = [block for block in BLOCKS if block.language == "python"]
RUN_PAGES = list(dict.fromkeys(block.page for block in PYTHON if block.runs))
CONFIGS = sorted([*(ROOT / "configs").glob("*.yaml"), *(ROOT / "examples").glob("*.yaml")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w.-]+)?\)")


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_parses_and_its_imports_exist(block):
    check_imports(ast.parse(block.text, filename=str(block)))


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """Command lines can be read, from a folder like the checkout, and do nothing."""
    stop_before_work(monkeypatch)
    for folder in ("configs", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_lines(lines, folder):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for line in lines:
        if line.startswith("make "):
            assert line.split()[1] in targets, f"there is no target of {line!r}"
        else:
            parse(line)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in ("bash", "yaml")], ids=str)
def test_command_lines_are_accepted(block, commands):
    lines = command_lines(block.text)
    # The command that reads a YAML file is in its comment, with the name that other blocks of the page have for it.
    for other in (other for other in BLOCKS if other.page == block.page and other.language == "yaml"):
        named = [re.search(r"--config (\S+)", line) for line in command_lines(other.text)]
        assert any(named), f"{other}: give the command that reads this file in its comment"
        for match in filter(None, named):
            (commands / match[1]).write_text(other.text, encoding="utf-8")
    check_lines(lines, commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_inside_of_sentences_exist(page, commands):
    for line in inline_commands(page):
        parse(line, placeholders=True)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_configs_are_accepted_by_the_command_that_they_name(config, commands):
    text = config.read_text(encoding="utf-8")
    lines = command_lines(text)
    if lines:
        assert any(f"{config.parent.name}/{config.name}" in line for line in lines)
        return check_lines(lines, commands)
    # Groups of tokens, which a line of prose names.
    assert f"--hierarchy configs/{config.name}" in text
    from hf_matryoshka.data.hierarchy_file import read_hierarchy
    from hf_matryoshka.data.yaml_mapping import read_mapping

    if "wordnet" in read_mapping(config):
        assert set(read_mapping(config)) <= {"wordnet", "depths", "min_tokens"}
    else:
        read_hierarchy(config)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            # Pages that only the site has: docs/hooks/pages.py.
            made = (ROOT / "docs" / "reference" / "cli.md",)
            path = (page.parent / target).resolve()
            assert path.exists() or path in made, f"{page.name} links to {target}"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tiny_sentence_transformer):
    """A folder with what the pages read, and a tokenizer."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("documentation")
    tokenizer = AutoTokenizer.from_pretrained(tiny_sentence_transformer)
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    build_inputs(folder, tokenizer)
    return folder, tokenizer


@pytest.fixture(scope="module")
def world(tmp_path_factory, inputs):
    """Runs the blocks of a page, once: `world(page)` gives its folder. The examples are installed meanwhile."""
    import hf_matryoshka.modeling

    (folder, tokenizer), runs = inputs, {}
    install_examples(tmp_path_factory.mktemp("examples") / "modeling", hf_matryoshka.modeling.__path__.append)
    sys.path.insert(0, hf_matryoshka.modeling.__path__[-1])

    def run(page):
        if page not in runs:
            runs[page] = tmp_path_factory.mktemp("page") / "work"
            shutil.copytree(folder, runs[page], symlinks=True)
            names = readme_names(runs[page], tokenizer) if page == "README.md" else page_names()
            with pytest.MonkeyPatch.context() as patch, contextlib.chdir(runs[page]):
                hurry(patch)
                execute(page, {"__name__": "__main__", **libraries(), **names})
        return runs[page]

    yield run
    sys.path.remove(hf_matryoshka.modeling.__path__.pop())


def libraries():
    """What a reader has imported already."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    return {"torch": torch, "SentenceTransformer": SentenceTransformer, "AutoModel": AutoModel}


def execute(page, names):
    for block in PYTHON:
        if block.page == page and block.runs:
            code = compile("\n" * (block.line - 1) + block.text, page, "exec")
            try:
                exec(code, names)
            except Exception as error:
                lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == page]
                raise AssertionError(f"{page}:{lines[-1]}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("page", RUN_PAGES)
def test_python_runs(page, world, hub):
    world(page)


def test_command_lines_of_the_readme_run(inputs, tmp_path, monkeypatch, hub):
    folder, _ = inputs
    shutil.copytree(folder, tmp_path / "work", symlinks=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(tmp_path / "work" / "examples")
    hurry(monkeypatch)
    build_command_inputs()
    done = set()
    for block in (block for block in BLOCKS if (block.page, block.language) == ("README.md", "bash")):
        run_lines([line for line in shell_lines(block) if line not in done])
        done.update(shell_lines(block))
    assert {"me/demo", "me/demo-d16"} <= set(hub.repos())


def test_exports_load_without_the_package(world, hub, run_script):
    blocks = [block for block in PYTHON if block.mark == "without the package"]
    code = "\n".join(
        f"import os; os.chdir({str(world(block.page))!r})\nexec(compile({block.text!r}, {str(block)!r}, 'exec'), {{}})"
        for block in blocks
    )
    run_script(code, without_package=True)


def test_a_new_architecture_takes_no_more_lines_than_its_page_says():
    paths = (ROOT / "docs" / "examples").glob("*_nested_bag.py")
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths) <= 100


def test_the_site_builds(tmp_path, monkeypatch):
    mkdocs = pytest.importorskip("mkdocs.config")
    from mkdocs.commands.build import build

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    config = mkdocs.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    try:
        build(config)
    finally:
        config.plugins.on_shutdown()
    for path in SITE_PAGES:
        page = path.relative_to(ROOT / "docs").with_suffix(".html")
        assert (tmp_path / "site" / page).is_file()
    assert "[`" not in (tmp_path / "site" / "reference" / "hub.html").read_text(encoding="utf-8")
    assert (Path(tmp_path) / "site" / "reference" / "cli.html").is_file()
