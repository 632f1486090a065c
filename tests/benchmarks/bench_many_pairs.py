"""Very many pairs: made by two processes that are killed again and again, beside three shards that nobody disturbs.

`python tests/benchmarks/bench_many_pairs.py [--pairs 15000] [--kills 20] [--batch-size 50] [--insert]`

The models are tiny, of 16 px and after a few steps. --insert: not pairs, but lesions of made-up heads pasted into
others, by `medgen insert`, such as `--insert --pairs 500 --kills 10`. Ends with an error unless all files are equal,
byte for byte, and unless the command that finds everything made takes at most a minute to check every file.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import TINY
from data.cohort import write_cohort
from faults import ranks
from faults.forkserver import Server
from insertion.made_up import write_heads

SECONDS = 60.0
"""At most, to check all pairs."""


def main() -> None:
    """Make the pairs in both ways, compare, and print the times."""
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(temporary)
        for name in ("logs", "cache"):
            (where / name).mkdir()
        server = Server(where / "logs")
        models = (
            write_heads(where / "heads", range(8)) if options.insert else _models(server, where)
        )
        killed = _timed("killed", lambda: _killed(server, models, where / "killed", options))
        shards = _timed("shards", lambda: _shards(server, models, where / "shards", options))
        differ = _differences(where / "killed", where / "shards")
        checked = _timed(
            "check", lambda: _run(server, *_command(models, where / "killed", options))
        )
        print(
            f"{options.pairs} pairs, {options.kills} kills: {killed:.0f} s; three shards, one by one: {shards:.0f} s"
        )
        print(
            f"files that differ: {len(differ)} {differ[:3]}; check of all of them: {checked:.1f} s"
        )
    if differ or checked > SECONDS:
        sys.exit("failed")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (("pairs", 15_000), ("kills", 20), ("batch-size", 50)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--insert", action="store_true")
    return parser.parse_args()


def _timed(what: str, do: Callable[[], None]) -> float:
    begun = time.perf_counter()
    do()
    spent = time.perf_counter() - begun
    print(f"{what}: {spent:.1f} s", flush=True)
    return spent


def _models(server: Server, where: Path) -> Path:
    root = write_cohort(where / "scans")
    for mode in ("seg", "bravo"):
        given = (
            f"data.root={root}",
            *TINY,
            "training.steps=4",
            f"run.dir={where / mode}",
            "callbacks.previews=false",
        )
        _run(server, "train", f"{mode}_rflow", *given)
    return where


def _command(models: Path, out: Path, options: argparse.Namespace) -> list[str]:
    if options.insert:
        scans = ("--hosts", models, "data.workers=1", "data.val_fraction=0")
        how = ("--image-model", "paste", "--num-images", options.pairs, "--output-dir", out)
        return [str(each) for each in ("insert", *scans, *how)]
    given = (
        "--seg-model",
        models / "seg",
        "--image-model",
        models / "bravo",
        "--output-dir",
        out,
        "--max-area",
        1,
    )
    numbers = ("--num-images", options.pairs, "--batch-size", options.batch_size, "--steps", 1)
    return [str(each) for each in ("generate", *given, *numbers, "--inside", "off", "--no-audit")]


def _killed(server: Server, models: Path, out: Path, options: argparse.Namespace) -> None:
    """Two processes, killed at times drawn at random but never at the end, then left to finish."""
    chance, words = random.Random(0), _command(models, out, options)
    for number in range(1, options.kills + 1):
        both = ranks.start(server, *words)
        while _lines(out) < number * options.pairs // (options.kills + 1):
            time.sleep(0.05)
            if not any(child.process.is_alive() for child in both):
                sys.exit(f"ended before they were killed: {[child.wait() for child in both]}")
        time.sleep(chance.uniform(0, 0.2))
        for child in both:
            child.process.kill()
        if any(child.wait().code != -signal.SIGKILL for child in both):
            sys.exit("ended by themselves; make more pairs")
    ended = ranks.run(server, *words)
    if any(each.code for each in ended):
        sys.exit(str(ended))


def _shards(server: Server, models: Path, out: Path, options: argparse.Namespace) -> None:
    for part in (1, 2, 3):
        _run(server, *_command(models, out, options), "--shard", f"{part}/3")


def _run(server: Server, *words: str) -> None:
    if (ended := server.run(*words)).code:
        sys.exit(str(ended))


def _lines(out: Path) -> int:
    path = out / "manifest.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _differences(one: Path, two: Path) -> list[str]:
    """Names of files that only one folder has, or that differ."""
    first, second = ({str(path.relative_to(each)): path for path in each.rglob("*") if path.is_file()}
                     for each in (one, two))  # fmt: skip
    both = first.keys() & second.keys()
    return sorted(
        (first.keys() ^ second.keys())
        | {n for n in both if first[n].read_bytes() != second[n].read_bytes()}
    )


if __name__ == "__main__":
    main()
