"""Fifty clients at once, for eight minutes: the local hub, and the Space of an exported level.

    python benchmarks/load.py --out benchmarks/results/load.json

`hub`: `hf-matryoshka hub serve`. Of 50 clients, 45 read over and over what a download reads (the repo's description,
its files, a config, a file of 1 MB), and 5 write with `huggingface_hub`, a commit a second each. `space`: the page
that `hf-matryoshka space` writes for one level of an adaptor on all-MiniLM-L6-v2, 1,000 glosses; all clients
search, each query a new one, as fast as answers come.

`errors`: answers that were none, or whose status or content was wrong. `latency_p50`, `latency_p99`: milliseconds of a
request or search, as the client sees it, with 49 others beside it. `memory_mb`: private memory of the server
(`RssAnon`) at the end, `memory_growth_mb`: less that after half of the time; `values` has it at every sixth. The log
of the hub (10,000 requests) and the messages that Gradio keeps (of 2,000 sessions) grow until they are full.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


# Before huggingface_hub reads it: the local hub takes plain uploads.
os.environ["HF_HUB_DISABLE_XET"] = "1"

import httpx
import numpy as np
from huggingface_hub import CommitOperationAdd, HfApi
from process_memory import private_mb

from hf_matryoshka import export_level
from hf_matryoshka.data.base_models import DEFAULT_BASE_MODEL, load_base_model
from hf_matryoshka.data.texts import read_texts
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.hub.space import build_space
from hf_matryoshka.surgery.adaptor_init import create_adaptor


REPO, WEIGHTS = "me/demo", os.urandom(1_000_000)


@contextmanager
def server(command: list[str], address: str, environment: dict[str, str], log: Path) -> Iterator[int]:
    """A process, from its first answer on; its id."""
    with open(log, "w") as file:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=file, stderr=file)
        try:
            for _ in range(600):
                try:
                    httpx.get(address, timeout=5)
                    break
                except httpx.TransportError:
                    if process.poll() is not None:
                        raise RuntimeError(f"{command} ended: {log.read_text()}") from None
                    time.sleep(0.2)
            yield process.pid
        finally:
            process.terminate()
            process.wait(30)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Tally:
    """What the clients have seen."""

    def __init__(self):
        self.milliseconds: list[float] = []
        self.errors: list[str] = []

    def rows(self, system: str, pid_memory: list[float], clients: int, seconds: float) -> list[dict]:
        sixths = [pid_memory[(len(pid_memory) - 1) * part // 6] for part in range(7)]
        values = {
            "requests": len(self.milliseconds),
            "errors": len(self.errors),
            "requests_per_second": len(self.milliseconds) / seconds,
            "latency_p50": float(np.quantile(self.milliseconds, 0.5)),
            "latency_p99": float(np.quantile(self.milliseconds, 0.99)),
            "memory_growth_mb": sixths[6] - sixths[3],
            "memory_mb": pid_memory[-1],
        }
        for error in self.errors[:5]:
            print(system, "error:", error)
        common = {"system": system, "level": f"{clients} clients", "split": "load", "low": None, "high": None}
        rows = [common | {"metric": name, "value": value, "seeds": 1} for name, value in values.items()]
        return [row | ({"values": sixths} if row["metric"] == "memory_mb" else {}) for row in rows]


async def load(
    tally: Tally, visit: Callable[[int, int], Awaitable[None]], clients: int, seconds: float, pid: int
) -> list[float]:
    """Each client visits again as soon as it has its answer; the memory of the server, a value a second."""
    until = time.monotonic() + seconds

    async def client(number: int) -> None:
        visits = 0
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                await visit(number, visits)
                tally.milliseconds.append(1000 * (time.monotonic() - began))
            except (httpx.HTTPError, ValueError, KeyError) as error:
                tally.errors.append(f"{type(error).__name__}: {error}")
            visits += 1

    async def memory() -> list[float]:
        found = []
        while time.monotonic() < until:
            found.append(private_mb(pid))
            await asyncio.sleep(1)
        return found

    _, found = await asyncio.gather(asyncio.gather(*(client(number) for number in range(clients))), memory())
    return [*found, private_mb(pid)]


def check(answer: httpx.Response, holds: bytes) -> None:
    answer.raise_for_status()
    if holds not in answer.content:
        raise ValueError(f"{answer.url} gave {answer.content[:80]!r}")


def hub_load(folder: Path, clients: int, seconds: float) -> list[dict]:
    port, tally, writers = free_port(), Tally(), clients // 10
    address, token = f"http://127.0.0.1:{port}", "hf_load"
    command = [sys.executable, "-m", "hf_matryoshka.cli", "hub", "serve", "--quiet", "--folder", str(folder / "hub")]
    command += ["--port", str(port), "--token", token]
    with server(command, f"{address}/api/models/{REPO}", {}, folder / "hub.log") as pid:
        api = HfApi(address, token)
        api.create_repo(REPO)
        files = {"config.json": b'{"model_type": "bert"}', "model.safetensors": WEIGHTS, "README.md": b"# Demo\n"}
        api.create_commit(REPO, [CommitOperationAdd(name, data) for name, data in files.items()], commit_message="all")
        reads = [
            (f"/api/models/{REPO}", b'"siblings"'),
            (f"/api/models/{REPO}/tree/main", b"config.json"),
            (f"/{REPO}/resolve/main/config.json", files["config.json"]),
            (f"/{REPO}/resolve/main/model.safetensors", WEIGHTS[-1000:]),
        ]
        until = time.monotonic() + seconds

        def write(number: int) -> None:
            repo, count = f"me/writer-{number}", 0
            api.create_repo(repo)
            while time.monotonic() < until:
                began = time.monotonic()
                try:
                    operation = CommitOperationAdd("step.json", json.dumps({"step": count}).encode())
                    api.create_commit(repo, [operation], commit_message=f"step {count}")
                    tally.milliseconds.append(1000 * (time.monotonic() - began))
                except Exception as error:  # whatever a client may see is an error of this run
                    tally.errors.append(f"commit: {type(error).__name__}: {error}")
                count += 1
                time.sleep(max(0.0, 1 - (time.monotonic() - began)))

        threads = [threading.Thread(target=write, args=[number]) for number in range(writers)]

        async def run() -> list[float]:
            limits = httpx.Limits(max_connections=clients)
            async with httpx.AsyncClient(timeout=60, follow_redirects=True, limits=limits) as session:

                async def visit(number: int, visits: int) -> None:
                    path, holds = reads[(number + visits) % len(reads)]
                    check(await session.get(address + path), holds)

                return await load(tally, visit, clients - writers, seconds, pid)

        for thread in threads:
            thread.start()
        memory = asyncio.run(run())
        for thread in threads:
            thread.join()
        return tally.rows("hub", memory, clients, seconds)


def space_load(folder: Path, clients: int, seconds: float, glosses: Path) -> list[dict]:
    base, tally, port = load_base_model(DEFAULT_BASE_MODEL), Tally(), free_port()
    texts = read_texts(glosses, "gloss")[:1000]
    corpus = folder / "glosses.txt"
    corpus.write_text("\n".join(texts) + "\n", encoding="utf-8")
    adaptor = create_adaptor(base.encode(texts, show_progress_bar=False))
    export_level(adaptor, "d64", folder / "d64", base_model=base)
    build_space(folder / "d64", folder / "space", corpus)
    address = f"http://127.0.0.1:{port}"
    settings = {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1", "HF_HUB_OFFLINE": "1"}
    with server([sys.executable, str(folder / "space" / "app.py")], address, settings, folder / "space.log") as pid:

        async def run() -> list[float]:
            limits = httpx.Limits(max_connections=clients)
            async with httpx.AsyncClient(timeout=120, limits=limits) as session:

                async def visit(number: int, visits: int) -> None:
                    # Of different lengths and never the same: nothing comes from a cache.
                    query = f"{texts[(number * 31 + visits) % len(texts)]} {number} {visits}"
                    sent = await session.post(f"{address}/gradio_api/call/search", json={"data": [query, 0, 0]})
                    sent.raise_for_status()
                    found = await session.get(f"{address}/gradio_api/call/search/{sent.json()['event_id']}")
                    check(found, b"event: complete")

                return await load(tally, visit, clients, seconds, pid)

        return tally.rows("space", asyncio.run(run()), clients, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--clients", default=50, type=int)
    parser.add_argument("--seconds", default=480.0, type=float)
    parser.add_argument("--systems", nargs="*", default=["hub", "space"], choices=["hub", "space"])
    parser.add_argument("--out", default="benchmarks/results/load.json")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if "hub" in arguments.systems:
            rows += hub_load(Path(folder), arguments.clients, arguments.seconds)
        if "space" in arguments.systems:
            glosses = arguments.data / "wordnet" / "synsets.jsonl.gz"
            rows += space_load(Path(folder), arguments.clients, arguments.seconds, glosses)
    print(
        format_rows(
            ["system", "metric", "value"], [[row["system"], row["metric"], f"{row['value']:.4g}"] for row in rows]
        )
    )
    print(write_report(arguments.out, "load", rows, seconds=arguments.seconds))


if __name__ == "__main__":
    main()
