"""Training on one GPU: images per second, their FLOP/s as a share of the measured peak, memory, and what 8 GB hold.

Each case runs in a process of its own, the cases one after the other in `--rounds` rounds: medgen compiled or not and
channels_last or not, and MONAI's plain loop as its tutorial has it (fp16) and in bf16 with a fused attention kernel.
The peak is that of a product of bf16 matrices. Then the largest batches that fit, and `medgen verify-resume` with
`training.deterministic=true`. `python tests/benchmarks/bench_gpu.py [--sides 128,256] [--parts train,fit,resume]`
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import bench_peers
import bench_step
import report
from data.cohort import write_cohort
from torch.utils.flop_counter import FlopCounterMode

from medgen.run.assemble import default_device
from medgen.training import device_memory
from medgen.training.throughput import flops_per_image, peak
from medgen.training.trainer import Trainer

BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
CONTEXT = 0.6
"""GB that CUDA takes for itself, beside torch's allocator."""
CHECKPOINTING = "network.unet.checkpointing"


class Case(NamedTuple):
    """What one process measures. who: `medgen`, `MONAI default` or `MONAI bf16`."""

    who: str
    side: int
    compiled: bool = False
    channels_last: bool = False

    def cells(self, batch: int) -> list[str]:
        marks = ["yes" if each else "no" for each in (self.compiled, self.channels_last)]
        return [self.who, str(self.side), str(batch), *marks]


class Measured(NamedTuple):
    """images per second, each over some steps; bytes; FLOPs of an image; FLOP/s of the device."""

    speeds: list[float]
    memory: float
    flops: float
    peak: float


COLUMNS = (
    "", "px", "batch", "compiled", "channels_last", "images/s", "lowest to highest", "of MONAI default",
    "of MONAI bf16", "share of peak", "GB",
)  # fmt: skip


def cases(side: int) -> list[Case]:
    """All of one size."""
    ours = [
        Case("medgen", side, compiled, last) for compiled in (False, True) for last in (False, True)
    ]
    return [Case("MONAI default", side), Case("MONAI bf16", side), *ours]


def batch_size(side: int, options: argparse.Namespace) -> int:
    """As many pixels at every size."""
    return max(1, int(options.batch * 128**2 / side**2))


# In the process of a case


def measure(case: Case, options: argparse.Namespace) -> Measured:
    """Steps after those that warm up and compile."""
    device, cuda = default_device(), torch.cuda.is_available()
    sized = _sized(case.side, batch_size(case.side, options), options)
    with tempfile.TemporaryDirectory() as folder:
        step, flops, close = _stepping(case, Path(folder), sized, device)
        bench_step.seconds(step, options.warmup, cuda)
        device_memory.forget(device)
        speeds = [
            sized.batch / bench_step.seconds(step, options.count, cuda)
            for _ in range(options.repeats)
        ]
        used = device_memory.peak(device)
        if options.profile:
            print(_profile(step, cuda), file=sys.stderr)
        close()
    return Measured(speeds, used, flops, peak(device, "bf16"))


def _stepping(
    case: Case, folder: Path, sized: argparse.Namespace, device: torch.device
) -> tuple[bench_peers.Work, float, Callable[[], None]]:
    """The step, FLOPs of an image, and what to call in the end."""
    if case.who == "medgen":
        step, trainer = _medgen(folder, sized, case.compiled, case.channels_last)
        return step, flops_per_image(trainer.run), trainer.run.train.close
    precision = "bf16" if case.who == "MONAI bf16" else "fp16" if device.type == "cuda" else "fp32"
    theirs, _ = bench_peers.monai_step(sized, device, precision, fused=precision == "bf16")
    with FlopCounterMode(display=False) as counter:
        theirs()
    return theirs, counter.get_total_flops() / sized.batch, lambda: None


def _medgen(
    folder: Path, sized: argparse.Namespace, compiled: bool, channels_last: bool
) -> tuple[Callable[[], None], Trainer]:
    layout = "channels_last" if channels_last else "contiguous"
    given = (
        f"training.compile={str(compiled).lower()}",
        f"training.memory_format={layout}",
        *sized.overrides,
    )
    return bench_step.medgen_step(folder, sized, *given)


def _sized(side: int, batch: int, options: argparse.Namespace) -> argparse.Namespace:
    return argparse.Namespace(
        **{**vars(options), "size": side, "batch": batch, "precision": "bf16"}
    )


def _profile(step: bench_peers.Work, cuda: bool) -> str:
    """Where the time of three steps goes, the largest first."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]
    with profile(activities=activities) as profiler:
        bench_step.seconds(step, 3, cuda)
    by = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    return profiler.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=70)


def largest(side: int, checkpointing: bool, options: argparse.Namespace) -> int:
    """The largest of `BATCHES` that trains within `--fit` GB, CUDA's own included; 0 if none does."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (options.fit - CONTEXT) * 1e9 / total))
    found = 0
    for batch in BATCHES:
        if not _trains(
            _sized(side, batch, options), f"{CHECKPOINTING}={str(checkpointing).lower()}"
        ):
            break
        found = batch
    return found


def _trains(sized: argparse.Namespace, *more: str) -> bool:
    try:
        with tempfile.TemporaryDirectory() as folder:
            step, trainer = bench_step.medgen_step(Path(folder), sized, *more, *sized.overrides)
            bench_step.seconds(step, 2, True)
            trainer.run.train.close()
    except torch.OutOfMemoryError:
        return False
    finally:
        step = trainer = None  # type: ignore[assignment]
        gc.collect()
        torch.cuda.empty_cache()
    return True


# In the process that starts the others


def train(options: argparse.Namespace) -> list[list[str]]:
    """Lines of the table; a case that fails says why."""
    found: dict[Case, list[Any]] = {}
    for number in range(options.rounds):
        for case in (case for side in _sides(options) for case in cases(side)):
            print(f"round {number + 1}, {case}", flush=True)
            found.setdefault(case, []).append(_elsewhere("case", list(case), options))
    return [line(case, results, found, options) for case, results in found.items()]


def line(
    case: Case, results: Sequence[Any], found: dict[Case, list[Any]], options: argparse.Namespace
) -> list[str]:
    """One case's cells, of what all rounds gave."""
    cells = case.cells(batch_size(case.side, options))
    good = _good(results)
    if not good:
        return [*cells, str(results[0]), *[""] * (len(COLUMNS) - len(cells) - 1)]
    speed, speeds = _speed(good), [each for one in good for each in one.speeds]
    peers = [_good(found.get(Case(who, case.side), [])) for who in ("MONAI default", "MONAI bf16")]
    of = [f"{speed / _speed(peer):.2f}" if peer else "" for peer in peers]
    share = f"{speed * good[0].flops / max(each.peak for each in good):.1%}"
    memory = f"{max(each.memory for each in good) / 1e9:.1f}"
    return [*cells, f"{speed:.1f}", f"{min(speeds):.1f} to {max(speeds):.1f}", *of, share, memory]


def _good(results: Sequence[Any]) -> list[Measured]:
    return [Measured(*each) for each in results if isinstance(each, list)]


def _speed(results: Sequence[Measured]) -> float:
    return statistics.median(each for one in results for each in one.speeds)


def fit(options: argparse.Namespace) -> list[str]:
    """A sentence for each size, with and without gradient checkpointing."""
    found = []
    for side in _sides(options):
        batches = [
            _elsewhere("largest", [side, checkpointing], options) for checkpointing in (False, True)
        ]
        what = f"fits into {options.fit:g} GB at {side} px: batch {batches[0]}"
        found.append(
            f"{what}, with {CHECKPOINTING}=true batch {batches[1]}; the largest tried is {BATCHES[-1]}"
        )
    return found


def resume(options: argparse.Namespace) -> list[str]:
    """What `medgen verify-resume` says, compiled and not."""
    said = []
    for compiled in ("false", "true"):
        with tempfile.TemporaryDirectory() as temporary:
            write_cohort(Path(temporary) / "cohort", patients=6, size=(64, 64, 24))
            sized = _sized(_sides(options)[0], 8, options)
            given = bench_step.overrides(Path(temporary), sized)
            wanted = (
                *given,
                "training.validate_every=1",
                "training.deterministic=true",
                f"training.compile={compiled}",
            )
            command = [sys.executable, "-m", "medgen", "verify-resume", bench_step.RECIPE, *wanted]
            done = subprocess.run(
                command, capture_output=True, text=True, env=_environment(temporary)
            )
        last = (done.stdout + done.stderr).strip().splitlines()[-1]
        said.append(
            f"verify-resume, deterministic, compile={compiled}: exit code {done.returncode}, {last}"
        )
    return said


def _sides(options: argparse.Namespace) -> list[int]:
    return [int(side) for side in options.sides.split(",")]


def _elsewhere(work: str, given: list[Any], options: argparse.Namespace) -> Any:
    """What `work` gives in a process of its own, else a word on why it gave nothing."""
    asked = json.dumps([work, given, vars(options)], default=str)
    command = [sys.executable, __file__, "--inside", asked]
    with tempfile.TemporaryDirectory() as temporary:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, env=_environment(temporary)
        )
    return (
        json.loads(done.stdout.splitlines()[-1])
        if done.returncode == 0
        else f"failed ({done.returncode})"
    )


def _environment(folder: str) -> dict[str, str]:
    return {**os.environ, "MEDGEN_CACHE": f"{folder}/cache"}


def inside(asked: str) -> Any:
    """The other side of `_elsewhere`."""
    work, given, values = json.loads(asked)
    options = argparse.Namespace(**values)
    try:
        return largest(*given, options) if work == "largest" else measure(Case(*given), options)
    except torch.OutOfMemoryError:
        return "out of memory"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for medgen's recipe")
    parser.add_argument("--sides", default="128,256", help="sizes of the images")
    parser.add_argument("--batch", type=int, default=32, help="at 128 px; as many pixels at others")
    parser.add_argument("--channels", default="128,256,256")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=10, help="steps before it is measured")
    parser.add_argument("--count", type=int, default=20, help="steps in a measurement")
    parser.add_argument("--repeats", type=int, default=5, help="measurements in a process")
    parser.add_argument("--fit", type=float, default=8.0, help="GB that a batch is to fit into")
    parser.add_argument("--parts", default="train,fit,resume", help="what to measure")
    parser.add_argument(
        "--profile", action="store_true", help="print where the time of a step goes, too"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse(sys.argv[1:])
    if options.inside:
        print(json.dumps(inside(options.inside)))
        return
    if not torch.cuda.is_available():
        sys.exit(
            "bench_gpu: torch sees no CUDA device. Run it on a machine with one, with torch's build for it."
        )
    chosen = options.parts.split(",")
    lines = train(options) if "train" in chosen else []
    notes = [
        *(fit(options) if "fit" in chosen else []),
        *(resume(options) if "resume" in chosen else []),
    ]
    about = [
        torch.cuda.get_device_name(),
        *report.machine(),
        f"unet ({options.channels}), bf16 where not said else",
    ]
    report.show(COLUMNS, lines)
    print(*about, *notes, sep="\n")
    if options.write:
        report.write(
            options.write, "Results on a GPU", about, report.markdown(COLUMNS, lines), notes
        )


if __name__ == "__main__":
    main()
