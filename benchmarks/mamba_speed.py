"""Time and memory of the Mamba encoder against texts' length, beside transformers of equal size.

    python benchmarks/mamba_speed.py --out benchmarks/results/mamba_speed.json

The same as `hf-matryoshka bench mamba`: [`measure_mamba_speed`] says what is measured and how, [`speed_systems`] which
systems. The encoder has the default sizes (6 blocks, hidden size 384, causal) and a vocabulary of 8,192. Run it on an
idle machine.
"""

import sys

from hf_matryoshka.cli.app import app


if __name__ == "__main__":
    app(["bench", "mamba", *sys.argv[1:]])
