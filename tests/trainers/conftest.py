import os
import subprocess
import sys
from pathlib import Path

import pytest


# Threads of gloo that still run when the interpreter is taken down abort the process now and then.
END = """
import os, torch
torch.distributed.barrier()
torch.distributed.destroy_process_group()
os._exit(0)
"""


@pytest.fixture
def run_in_two_processes(tmp_path):
    """Runs the text of a script that opens a process group with torchrun; fails with what it printed if it fails."""

    def run(script: str, *arguments: object) -> None:
        file = tmp_path / "run.py"
        file.write_text(script + END)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(file)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        run = subprocess.run([*command, *map(str, arguments)], env=environment, capture_output=True, text=True)
        # What a process says comes before the long report of torchrun about it.
        assert run.returncode == 0, f"{run.stderr[:4000]}\n…\n{run.stderr[-1000:]}"

    return run
