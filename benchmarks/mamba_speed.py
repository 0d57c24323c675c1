"""Time and memory of the Mamba encoder against texts' length, beside transformers of equal size.

    python benchmarks/mamba_speed.py --out benchmarks/results/mamba_speed.json

The same as `hf-matryoshka bench mamba`: [`measure_mamba_speed`] says what is measured and how, [`speed_systems`] which
systems. The encoder has the default sizes (6 blocks, hidden size 384, causal) and a vocabulary of 8,192. Run it on an
idle machine. `--quick` is a small run below outputs/bench.
"""

import sys

import quick

from hf_matryoshka.cli.app import app


QUICK = ["--lengths", "256,512,1024", "--memory", "1024", "--rounds", "1"]


if __name__ == "__main__":
    given = sys.argv[1:]
    if "--quick" in given:
        given = [*QUICK, "--out", str(quick.FOLDER / "mamba_speed.json"), *(one for one in given if one != "--quick")]
    app(["bench", "mamba", *given])
