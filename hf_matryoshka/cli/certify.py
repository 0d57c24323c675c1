"""`hf-matryoshka certify`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .command import print_json
from .lists import floats, strings
from .options import JsonFlag


def certify(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run of train delta; gets certified/.")],
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            help="Texts to choose the gates on, not trained on (.txt, .jsonl, .csv, .tsv, or .gz); repeatable."
        ),
    ] = None,
    certificate: Annotated[
        list[Path] | None,
        typer.Option(help="Other such texts, to certify on; repeatable. By default halves of what the run held out."),
    ] = None,
    text_field: Annotated[
        str, typer.Option(help="Field of the .jsonl files or column of the tables that holds the text.")
    ] = "text",
    chain: Annotated[
        Any,
        typer.Option(parser=strings, metavar="NAMES", help="Levels, each inside the next; the longest chain."),
    ] = None,
    gates: Annotated[
        Any, typer.Option(parser=floats, metavar="NUMBERS", help="Gates to try, 0 and 1 among them; 0,0.25,...,1.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Mean loss that a larger level may lose.")] = 0.0,
    confidence: Annotated[float, typer.Option(help="Of all bounds together.")] = 0.95,
    teacher: Annotated[
        str | None,
        typer.Option(help="Model whose embeddings a sentence encoder should give; the one it was distilled from."),
    ] = None,
    max_items: Annotated[int, typer.Option(help="Rows or texts of each split, at most.")] = 2048,
    batch_size: Annotated[int, typer.Option(help="Rows or texts at a time.")] = 32,
    device: Annotated[str | None, typer.Option(help="Where to compute, for example cuda; the CPU by default.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier certificate of the run.")] = False,
    json: JsonFlag = False,
) -> None:
    """Gate what each level adds to a smaller one, and certify on held-out texts that no larger level loses.

    RUN/certified holds the model with its gates and the certificate; `hf-matryoshka export RUN/certified OUT` puts it
    into cards and manifests.

    Example: hf-matryoshka certify runs/encoder --calibration a.txt --certificate b.txt
    """
    from ..recipes.certify import certify_run
    from ..surgery.gate_search import GATES

    found = certify_run(
        run,
        calibration,
        certificate,
        text_field=text_field,
        chain=chain,
        gates=GATES if gates is None else gates,
        tolerance=tolerance,
        confidence=confidence,
        teacher=teacher,
        max_items=max_items,
        batch_size=batch_size,
        device=device,
        overwrite=overwrite,
        progress=True,
    )
    statement = found.certificate
    if json:
        print_json({"folder": found.folder, **statement.to_dict()})
        return
    for gate in found.found.gates:
        losses = f"{statement.metric} {gate.smaller_loss:.4f} -> {gate.loss:.4f} (calibration)"
        print(f"{gate.smaller} -> {gate.larger}: gate {gate.alpha:g}, {losses}")
        if gate.inexact is not None:
            print(f"  a gate of 0 is not exactly the smaller level: {gate.inexact}")
    for pair in statement.pairs:
        bounds = f"{pair.difference:+.4f} [{pair.low:+.4f}, {pair.high:+.4f}]"
        print(f"{pair.larger} - {pair.smaller}: {bounds} {'certified' if pair.certified else 'not certified'}")
    print(
        f"Violations on {statement.certificate.items} other {statement.unit}: {statement.violations_before} of "
        f"{len(statement.pairs)} pairs before, {statement.violations} with the gates; certified: {statement.certified}"
    )
    print(f"Certified model: {found.folder}")
