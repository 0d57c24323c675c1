"""Pages that the site has beside those of `docs/`: README.md, CONTRIBUTING.md, measured rows, and the command line."""

import re
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


ROOT = Path(__file__).resolve().parents[2]
README, COMMANDS, RESULTS = "readme.md", "reference/cli.md", "benchmarks/RESULTS.md"
CONTRIBUTING = "CONTRIBUTING.md"
# Of README.md; what it leads to is for those who have the checkout.
EXAMPLES = re.compile(r"\[([^\]]+)\]\(examples/README\.md\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds them."""
    for name, source in ((README, "README.md"), (CONTRIBUTING, CONTRIBUTING)):
        text = EXAMPLES.sub(r"\1", (ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, name, content=text.replace("](docs/", "](")))
    files.append(File.generated(config, COMMANDS, content=command_line()))
    for path in (ROOT / RESULTS, *sorted((ROOT / "benchmarks" / "results").glob("*.json"))):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to README.md and to measured rows lead out of `docs/` in the checkout, but not in the site."""
    up = "../" * page.file.src_uri.count("/")
    markdown = re.sub(rf"\]\({re.escape(up)}\.\./README\.md", f"]({up}{README}", markdown)
    return re.sub(rf"\]\({re.escape(up)}\.\./benchmarks/", f"]({up}benchmarks/", markdown)


def command_line() -> str:
    """Every command with its help and its options, as the parser has them."""
    from hf_matryoshka.cli.app import app

    lines = ["# Command line", ""]
    root = typer.main.get_command(app)
    for name, command in commands(root, root.name):
        text = " ".join((command.help or "").split()).split("Example")
        lines += [f"## {name}", "", text[0], ""]
        lines += ["| option | what it does |", "|---|---|"]
        for parameter in command.params:
            written = ", ".join([*parameter.opts, *parameter.secondary_opts])
            if parameter.param_type_name == "argument":
                written = parameter.name.upper()
            said = " ".join((getattr(parameter, "help", None) or "").split())
            lines.append("| `{}` | {} |".format(written, said.replace("|", "\\|").replace("<", "&lt;")))
        lines.append("")
    return "\n".join(lines)


def commands(group, name: str):
    """Names and commands of a tree, without the groups."""
    for part, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {part}")
        else:
            yield f"{name} {part}", command
