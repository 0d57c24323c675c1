"""`hf-matryoshka bench ...`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import JsonFlag, integers, print_json


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
        config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
        if config.model_type != MatryoshkaMambaConfig.model_type:
            raise ValueError(
                f"{model} is a {config.model_type}; bench mamba takes a {MatryoshkaMambaConfig.model_type}"
            )
    if threads is not None:
        torch.set_num_threads(threads)
    memory = MEMORY_LENGTHS if memory is None else memory
    rows = measure_mamba_speed(config, lengths or LENGTHS, memory, longest_quadratic, rounds, progress=not json)
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
