"""What it costs that threads wait passively: training with OMP_WAIT_POLICY=PASSIVE beside torch's own policy.

Each sample is a process of its own, as the policy is read when torch is imported; the two take turns, so that a machine
that drifts slows both. `--busy N` starts N processes that compute beside them.

    python tests/benchmarks/bench_waiting.py --write tests/benchmarks/RESULTS.md
    python tests/benchmarks/bench_waiting.py --busy 1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
POLICIES = {"passive": {"OMP_WAIT_POLICY": "PASSIVE"}, "own": {}}
SIZE = (72, 84, 40)
COSTS = 1.02
"""At most, on a quiet machine."""
MARKS = ("<!-- waiting: begin -->", "<!-- waiting: end -->")
BUSY = "while True: sum(range(10_000))"


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as temporary, _beside(options.busy):
        data = _cohort(Path(temporary))
        speeds: dict[str, list[float]] = {name: [] for name in POLICIES}
        for turn in range(options.turns):
            for name in sorted(POLICIES, reverse=bool(turn % 2)):
                where = Path(temporary, f"{name}-{turn}")
                speeds[name].append(_train(where, data, options, POLICIES[name]))
                print(
                    f"{turn + 1}/{options.turns}  {name:<8} {speeds[name][-1]:6.2f} images/s",
                    flush=True,
                )
    text = _report(speeds, options)
    print(text)
    if options.write:
        _write(options.write, text)


def _train(where: Path, data: Path, options: argparse.Namespace, policy: dict[str, str]) -> float:
    """Images per second of a run's steps but for the first ones, as its journal has them."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OMP_", "GOMP_", "KMP_"))
    }
    threads = {"OMP_NUM_THREADS": str(options.threads)} if options.threads else {}
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "plugins")))
    environment = {
        **inherited,
        **threads,
        **policy,
        "PYTHONPATH": paths,
        "MEDGEN_CACHE": str(data / "cache"),
    }
    given = (
        f"data.root={data}", "data.min_foreground=0.1", "training.precision=fp32", "training.compile=false",
        f"training.steps={options.steps}", "training.validate_every=0", "callbacks.previews=false",
        "callbacks.tensorboard=false", f"callbacks.progress.every_steps={options.warm}", f"run.dir={where}",
    )  # fmt: skip
    # medgen sets the policy where nobody has, so the other one is torch's by its own name
    start = (
        "import sys; from medgen.system import surroundings; surroundings.prepare = lambda: None; "
        "from medgen.cli.main import main; main(sys.argv[1:])"
    )
    command = [
        sys.executable,
        "-c",
        start,
        "train",
        str(ROOT / "tests/benchmarks/small_bravo.toml"),
        *given,
    ]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(
        line["images_per_second"]
        for line in lines
        if line["step"] > options.warm and "images_per_second" in line
    )


def _cohort(folder: Path) -> Path:
    from data.cohort import write_cohort

    return write_cohort(folder / "data", size=SIZE)


@contextmanager
def _beside(count: int) -> Iterator[None]:
    """While so many other processes compute."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for each in others:
            each.kill()
            each.wait()


def _report(speeds: dict[str, list[float]], options: argparse.Namespace) -> str:
    ratios = [own / passive for own, passive in zip(speeds["own"], speeds["passive"], strict=True)]
    cost = statistics.median(ratios)
    goal = (
        f"at most {COSTS}: {'met' if cost <= COSTS else 'missed'}"
        if not options.busy
        else "no goal"
    )
    table = [
        "| beside | passive, images/s | torch's own, images/s | time, passive / own (median, range) | goal |",
        "|---|---|---|---|---|",
        f"| {options.busy} busy processes | {statistics.median(speeds['passive']):.2f} | "
        f"{statistics.median(speeds['own']):.2f} | {cost:.3f} ({min(ratios):.3f} to {max(ratios):.3f}) | {goal} |",
    ]
    what = (
        f"small_bravo in fp32, {options.steps} steps, {options.turns} turns, {os.cpu_count()} cores"
    )
    return "\n".join([f"How threads wait: {what}.", "", *table])


def _write(path: Path, text: str) -> None:
    """Between two marks of the file, at its end if it has none; a line for another number of processes stays."""
    old = path.read_text() if path.exists() else ""
    begin, end = MARKS
    before, _, rest = old.partition(begin)
    kept, _, after = rest.partition(end)
    busy = text.splitlines()[-1].split("|")[1]
    rows = [
        line
        for line in kept.splitlines()
        if line.startswith("| ") and "busy" in line and busy not in line
    ]
    whole = "\n".join([begin, "## How threads wait", "", text, *rows, end])
    path.write_text(f"{before.rstrip()}\n\n{whole}\n{after.lstrip()}")


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=8, help="samples of each policy")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--warm", type=int, default=10, help="steps that are not counted, and between two numbers"
    )
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside it")
    parser.add_argument("--write", type=Path, help="file for the table")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
