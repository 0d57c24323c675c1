"""`hf-matryoshka combine` and `hf-matryoshka fold-glue`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .command import print_json
from .lists import floats
from .options import JsonFlag


def combine(
    output: Annotated[Path, typer.Argument(help="New folder for the combined model.")],
    models: Annotated[
        list[str], typer.Argument(help="Decoders: folders (Llamas, or runs of train gpt) or Hub ids of Llamas.")
    ],
    weights: Annotated[
        Any, typer.Option(parser=floats, metavar="NUMBERS", help="Weight of each one's logits; their mean by default.")
    ] = None,
    glue: Annotated[bool, typer.Option(help="Put linear maps between the parts, for train gpt --glue-only.")] = True,
    json: JsonFlag = False,
) -> None:
    """Put trained decoders of one shape side by side in one, whose logits are the mean of theirs.

    Example: hf-matryoshka combine runs/four runs/one runs/two runs/three runs/other
    """
    from transformers import PreTrainedModel

    from ..data.files import write_beside
    from ..data.pack import check_output
    from ..data.tokens import load_tokenizer
    from ..hub.trained_folder import load_trained_model
    from ..recipes.gpt_model import load_decoder
    from ..surgery.combine import combine as run

    check_output(output)
    parts, tokenizers = [], []
    for name in models:
        # A Llama has no levels, which a nested model of a run has.
        nested = load_trained_model(Path(name)) if (Path(name) / "model").is_dir() else None
        if nested is None:
            parts.append(load_decoder(name))
            tokenizers.append(load_tokenizer(name))
        elif isinstance(nested.model, PreTrainedModel) and nested.tokenizer is not None:
            parts.append(nested.model)
            tokenizers.append(nested.tokenizer)
        else:
            raise ValueError(
                f"{name} holds no decoder with its tokenizer; give runs of hf-matryoshka train gpt, or Llamas"
            )
    whole = run(parts, weights, tokenizers, glue)
    with write_beside(output) as temporary:
        whole.save_pretrained(temporary)
        tokenizers[0].save_pretrained(temporary)
    if json:
        print_json({"model": output, "parts": len(parts), "hidden_size": whole.config.hidden_size})
        return
    print(f"{len(parts)} decoders of {parts[0].config.hidden_size} as one of {whole.config.hidden_size}: {output}")


def fold_glue(
    model: Annotated[
        Path, typer.Argument(help="A combined model with glue, or the folder of the run that trained it.")
    ],
    output: Annotated[Path, typer.Argument(help="New folder for the model without.")],
    json: JsonFlag = False,
) -> None:
    """Take the glue of a combined model away, into the weights around it; the model computes the same.

    Example: hf-matryoshka fold-glue runs/glued outputs/folded
    """
    from ..data.files import write_beside
    from ..data.pack import check_output
    from ..hub.trained_folder import load_trained_model
    from ..modeling import MatryoshkaGPTForCausalLM
    from ..surgery.combine import fold_glue as run

    check_output(output)
    found = load_trained_model(model)
    if found is None or not isinstance(found.model, MatryoshkaGPTForCausalLM):
        raise ValueError(f"{model} holds no combined decoder; make one with hf-matryoshka combine")
    folded = run(found.model)
    with write_beside(output) as temporary:
        folded.save_pretrained(temporary)
        if found.tokenizer is not None:
            found.tokenizer.save_pretrained(temporary)
    if json:
        print_json({"model": output})
        return
    print(output)
