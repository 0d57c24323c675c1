"""Fixture with the tests' own nested architecture, as if it were one of this package."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest


ARCHITECTURE = Path(__file__).resolve().parent / "architectures"
HEADS = ("TinyNestedModel", "TinyNestedForMaskedLM", "TinyNestedForSequenceClassification")


@pytest.fixture(scope="session")
def tiny_nested(tmp_path_factory):
    """The classes of `tests/architectures`, and `make(name="TinyNestedModel", **config)`, which builds a model.

    The files are copied beside those of `modeling/`, because transformers looks for what a repo needs in one folder,
    and imported as members of `hf_matryoshka.modeling`, which a real architecture would be.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

    import hf_matryoshka.modeling
    from hf_matryoshka.modeling import levels

    folder = tmp_path_factory.mktemp("architectures")
    for path in (*Path(levels.__file__).parent.glob("*.py"), *ARCHITECTURE.glob("*.py")):
        shutil.copyfile(path, folder / path.name)
    hf_matryoshka.modeling.__path__.append(str(folder))
    from hf_matryoshka.modeling import configuration_tiny_nested, modeling_tiny_nested

    config_class = configuration_tiny_nested.TinyNestedConfig
    classes = {name: getattr(modeling_tiny_nested, name) for name in HEADS}
    AutoConfig.register(config_class.model_type, config_class)
    autos = (AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification)
    for auto, model_class in zip(autos, classes.values(), strict=True):
        auto.register(config_class, model_class)

    def make(name="TinyNestedModel", **config):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = classes[name](config_class(**config)).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))
        return model

    yield SimpleNamespace(TinyNestedConfig=config_class, make=make, folder=folder, **classes)
    hf_matryoshka.modeling.__path__.remove(str(folder))
