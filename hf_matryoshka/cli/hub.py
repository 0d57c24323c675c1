"""`hf-matryoshka hub serve`."""

import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer


if TYPE_CHECKING:
    from ..hub.local.handler import ServedRequest


def serve(
    folder: Annotated[Path, typer.Option(help="Where repos are kept, also between runs.")] = Path("outputs/hub"),
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 8765,
    user: Annotated[str, typer.Option(help="User whose repos can be written, as in USER/demo.")] = "me",
    token: Annotated[str | None, typer.Option(help="Token that may write; by default the folder's own.")] = None,
    max_upload_mb: Annotated[int, typer.Option(help="Largest upload that is taken.")] = 5120,
    drop: Annotated[float, typer.Option(help="Share of requests that get no answer.")] = 0.0,
    cut: Annotated[float, typer.Option(help="Share of answers that break off in the middle.")] = 0.0,
    delay_ms: Annotated[int, typer.Option(help="How late all other answers come.")] = 0,
    fault_seed: Annotated[int, typer.Option(help="The same seed gives the same faults.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no line for each request.")] = False,
) -> None:
    """Serve a hub until Ctrl-C. Paste the printed lines into another terminal, and push there.

    Example: hf-matryoshka hub serve --port 8765
    """
    from ..hub.local import Faults, LocalHub

    if max_upload_mb < 1:
        raise ValueError(f"--max-upload-mb is {max_upload_mb}; give at least 1")
    faults = None
    if drop or cut or delay_ms:
        faults = Faults(drop, cut, 1 - (drop + cut) if delay_ms else 0.0, delay_ms / 1000, fault_seed)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with LocalHub(
        folder,
        port,
        user,
        token=token,
        faults=faults,
        max_upload_bytes=max_upload_mb * 1024**2,
        on_request=(lambda request: None) if quiet else _print_request,
    ) as hub:
        for name, value in hub.environment().items():
            print(f"export {name}={shlex.quote(value)}", flush=True)
        print(f"Serving {folder} at {hub.endpoint}; Ctrl-C stops.", file=sys.stderr, flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass
    print(f"Stopped; {folder} keeps the repos.", file=sys.stderr)


def _print_request(request: "ServedRequest") -> None:
    size = f"{request.sent or request.received:>12,} bytes"
    notes = "".join(f"  {note}" for note in (request.fault, request.error) if note)
    line = f"{request.status or '---':>3} {request.method:<6} {size}  {request.path}{notes}"
    print(line, file=sys.stderr, flush=True)
