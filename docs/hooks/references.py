"""Docstrings as the reference shows them: [`Name`] is a link where it has that name, types are plain."""

import re

import griffe


PACKAGE = "hf_matryoshka"
# [`Curve`], [`Curve.autc`], [`~evaluation.metrics.autc`], but no Markdown link that has a target already.
REFERENCE = re.compile(r"\[`(~?)([\w.]+)`\](?![\[(])")
# `name (type, *optional*): ` or several of these with commas between; a type has one pair of parentheses at most.
NAMED = r"(\w+) \(((?:[^()\n]|\([^()\n]*\))*)\)"
ARGUMENTS = re.compile(rf"^( +){NAMED}((?:, {NAMED})*):(?=\s)", re.MULTILINE)
OPTIONAL = re.compile(r", \*optional\*.*")


class References(griffe.Extension):
    """Rewrites the docstrings of the package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **kwargs) -> None:
        """Called by griffe."""
        if pkg.name != PACKAGE:
            return
        documented = [item for item in members(pkg) if item.has_docstring]
        by_name: dict[str, list[str]] = {}
        for item in documented:
            parts = item.path.split(".")[1:]
            for start in range(len(parts)):
                by_name.setdefault(".".join(parts[start:]), []).append(item.path)

        def link(match: re.Match) -> str:
            shown = match[2].rpartition(".")[2] if match[1] else match[2]
            found = by_name.get(match[2], [])
            return f"[`{shown}`][{found[0]}]" if len(found) == 1 else f"`{shown}`"

        for item in documented:
            item.docstring.value = REFERENCE.sub(link, ARGUMENTS.sub(plain_arguments, item.docstring.value))


def members(item: griffe.Object):
    """All public classes, functions, methods and modules inside, each once."""
    for member in item.members.values():
        if member.is_alias or member.name.startswith("_") or member.is_attribute or member.name == "forward":
            continue
        yield member
        if member.is_module or member.is_class:
            yield from members(member)


def plain_arguments(match: re.Match) -> str:
    """One line an argument, with its bare type; the signature says what is optional and the default."""
    found = re.findall(NAMED, match[0])
    last = found[-1][0]
    lines = [f"{match[1]}{name} ({plain_type(kind)}): As `{last}`." for name, kind in found[:-1]]
    return "\n".join([*lines, f"{match[1]}{last} ({plain_type(found[-1][1])}):"])


def plain_type(text: str) -> str:
    """`np.ndarray` of "`np.ndarray` of shape `(n, dim)`, *optional*, defaults to ..." with its shape."""
    return re.sub(r"\[?`\]?|\]$", "", OPTIONAL.sub("", text)).replace("~", "")
