"""What a Space needs to run: the same lower bounds as this package."""

import importlib.metadata


# Those that the page was tested with in a browser.
GRADIO_VERSION = "6.31.0"
PYTHON_VERSION = "3.11"
# Other packages come with these.
_NEEDED = ("torch", "transformers", "sentence-transformers")


def requirements() -> list[str]:
    """Lines of `requirements.txt`."""
    from packaging.requirements import Requirement

    found = {}
    for line in importlib.metadata.requires("hf-matryoshka") or []:
        requirement = Requirement(line)
        if requirement.marker is None and requirement.name in _NEEDED:
            found[requirement.name] = str(requirement.specifier)
    # Hugging Face installs the version that the card names before these; elsewhere this line does.
    return [f"gradio>={GRADIO_VERSION},<7", *(f"{name}{found.get(name, '')}" for name in _NEEDED)]
