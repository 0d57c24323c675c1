"""`hf-matryoshka bench ...`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .command import print_json
from .lists import integers
from .options import JsonFlag


def mamba(
    model: Annotated[
        str | None, typer.Argument(help="A Mamba encoder, a folder or a Hub id; the default sizes without.")
    ] = None,
    lengths: Annotated[
        Any, typer.Option(parser=integers, metavar="INTEGERS", help="Tokens of the texts; 128,...,32768.")
    ] = None,
    memory: Annotated[
        Any, typer.Option(parser=integers, metavar="INTEGERS", help="Tokens of the texts for the memory; 8192,32768.")
    ] = None,
    longest_quadratic: Annotated[int, typer.Option(min=1, help="Longest text of the transformers.")] = 8192,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds, of which the median counts.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; as many as there are cores by default.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run the code of the model's repo.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file for the rows.")] = None,
    json: JsonFlag = False,
) -> None:
    """Time and memory of a Mamba encoder by width and length, beside BERT, ModernBERT and Mamba2 of equal size.

    Weights are random: nothing of this depends on them. Nothing else should run meanwhile.

    Example: hf-matryoshka bench mamba outputs/mamba/model --lengths 512,8192
    """
    import torch
    from transformers import AutoConfig

    from ..evaluation.mamba_speed import LENGTHS, MEMORY_LENGTHS, measure_mamba_speed
    from ..evaluation.report import write_report
    from ..evaluation.speed_rivals import ONEDNN, build_system, layer_parameters, speed_systems
    from ..evaluation.table import format_rows
    from ..modeling import MatryoshkaMambaConfig

    config = MatryoshkaMambaConfig(vocab_size=8192)
    if model is not None:
        try:
            config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
        except OSError as error:
            raise OSError(f"cannot load a Mamba encoder from {model!r} ({' '.join(str(error).split())})") from error
        if config.model_type != MatryoshkaMambaConfig.model_type:
            raise ValueError(
                f"{model} is a {config.model_type}; bench mamba takes a {MatryoshkaMambaConfig.model_type}"
            )
    if threads is not None:
        torch.set_num_threads(threads)
    memory = MEMORY_LENGTHS if memory is None else memory
    rows = measure_mamba_speed(config, lengths or LENGTHS, memory, longest_quadratic, rounds, progress=True)
    names = [name for name in speed_systems(config) if " " not in name or name == f"ours {config.levels[-1]}"]
    names = [name for name in names if not name.endswith(ONEDNN)]  # as large, and without parameters
    sizes = {name: layer_parameters(build_system(name, config, 16)[0]) for name in names}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_report(out, "mamba_speed", rows, threads=torch.get_num_threads(), layer_parameters=sizes)
    if json:
        print_json(rows)
        return
    units = {"seconds": "s", "extra_mb": "MB", "exponent": ""}
    body = [
        [
            row["system"],
            row["level"],
            row["precision"],
            row["linear_layers"],
            row["split"],
            f"{row['value']:.4g} {units[row['metric']]}",
        ]
        + [f"{row['over_ours']:.2f}" if "over_ours" in row else ""]
        for row in rows
    ]
    print(format_rows(["system", "level", "precision", "linear layers", "tokens", "measured", "time over ours"], body))
    if out is not None:
        print(out)


def gpt(
    model: Annotated[Path, typer.Argument(help="A trained Matryoshka GPT, or the folder of its run.")],
    text: Annotated[Path, typer.Option(help="File with text; prompts are taken from all over it.")],
    level: Annotated[str | None, typer.Option(help="The level that verifies; the largest by default.")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Number of prompts.")] = 8,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(min=9, help="Tokens written after each.")] = 64,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; as many as there are cores by default.")] = None,
    json: JsonFlag = False,
) -> None:
    """Which smaller level should draft for another, and how many tokens: acceptance and time on this machine.

    Example: hf-matryoshka bench gpt runs/gpt --text held_out.txt
    """
    import torch

    from ..data.token_windows import read_documents
    from ..evaluation.draft_choice import choose_draft
    from ..evaluation.table import format_rows
    from ..hub.trained_folder import load_trained_model
    from ..modeling import MatryoshkaGPTForCausalLM

    found = load_trained_model(model)
    if found is None or found.tokenizer is None or not isinstance(found.model, MatryoshkaGPTForCausalLM):
        raise ValueError(f"{model} holds no Matryoshka GPT with a tokenizer; give one of hf-matryoshka train gpt")
    tokens = found.tokenizer("\n".join(read_documents(text)), add_special_tokens=False)["input_ids"]
    room = len(tokens) - prompt_tokens
    if room < prompts:
        raise ValueError(f"{text} has {len(tokens)} tokens, too few for {prompts} prompts of {prompt_tokens}")
    if threads is not None:
        torch.set_num_threads(threads)
    starts = [room * number // prompts for number in range(prompts)]
    batch = torch.tensor([tokens[start : start + prompt_tokens] for start in starts])
    choice = choose_draft(found.model, batch, level, max_new_tokens=max_new_tokens, progress=True)
    if json:
        print_json({"generate": choice.options, "rows": choice.rows})
        return
    names = ("acceptance", "tokens_per_pass", "speedup", "draft_ms", "verify_ms")
    body = [
        [row["draft_level"], str(row["num_draft_tokens"]), *(f"{row[name]:.3g}" for name in names)]
        for row in choice.rows
    ]
    print(format_rows(["draft", "tokens", *(name.replace("_", " ") for name in names)], body))
    options = ", ".join(f"{name}={value!r}" for name, value in choice.options.items())
    print(f"generate(..., {options})" if options else "no draft is faster than plain decoding here")
