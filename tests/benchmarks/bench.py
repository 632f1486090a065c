"""All that medgen promises of its speed on a CPU, in one table; everything in it is measured side by side in this run.

Each row is the time of one thing over the time of another, measured in turn, so that a number above 1 says how many
times faster the second is; A/A rows measure a thing against itself and show the noise. Peers need the extra `bench`.
`python tests/benchmarks/bench.py [--pairs 12] [--channels 128,256,256] [--only step,peers] [--write FILE] [--quick]`
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import bench_crops
import bench_data
import bench_faults
import bench_latent
import bench_peers
import bench_ranks
import bench_step
import report
from bench_step import compare, seconds
from report import Goal, Row

from medgen.run import auto_settings
from medgen.run.assemble import build, default_device
from medgen.system import console

SAMPLED = 20
"""Of DDPM's 1000 steps, how many are measured; each costs the same."""
QUICK = {
    "pairs": 2,
    "channels": "8,16",
    "autoencoder": "8,8,8",
    "size": 32,
    "batch": 2,
    "megabytes": 2,
}


Build = Callable[[], tuple[bench_peers.Work, torch.nn.Module]]


class Part(NamedTuple):
    """Rows of the table, and what to know of them."""

    rows: Sequence[Row]
    notes: Sequence[str] = ()


def step(folder: Path, options: argparse.Namespace) -> Part:
    rows = bench_step.measure(folder, options)
    goals = {"medgen / bare": Goal("most", 1.02)}
    note = "bare: forward, loss, backward, clipping and fused AdamW on one batch; medgen adds data, draws, EMA and logs."
    return Part(
        [Row(f"step: {name}", ratios, goals.get(name)) for name, ratios in rows.items()], [note]
    )


def volumes(folder: Path, options: argparse.Namespace) -> Part:
    """The step of volumes, a quarter of the size a side, with a narrower network as they take longer."""
    given = {"size": max(16, options.size // 4), "batch": 2}
    given |= {} if options.quick else {"channels": "32,64,64"}
    sized = argparse.Namespace(**{**vars(options), **given})
    rows = bench_step.measure(folder, sized, axes=3)
    goals = {"medgen / bare": Goal("most", 1.02)}
    note = f"volumes: {sized.size} px a side, unet ({sized.channels}), batch {sized.batch}"
    return Part([Row(f"volumes: {name}", each, goals.get(name)) for name, each in rows.items()], [note])  # fmt: skip


def peers(folder: Path, options: argparse.Namespace) -> Part:
    ours, trainer = bench_step.medgen_step(folder, options)
    note = f"peers' step: parameters: medgen {bench_peers.parameters(trainer.run.network)}"
    seconds(ours, 2, False)
    rows = []
    for name, precision, make in _peers(options):
        theirs, network = make()
        seconds(theirs, 2, False)
        ratios = compare(theirs, ours, max(2, options.pairs // 2), options.count, False)
        rows.append(Row(f"step: {name} / medgen", ratios, _goal(precision, options)))
        note += f", {name} {bench_peers.parameters(network)}"
    trainer.run.train.close()
    missing = (
        []
        if bench_peers.has_diffusers()
        else ["diffusers is left out: pip install 'medgen[bench]'"]
    )
    return Part(rows, [note, *missing])


def _peers(options: argparse.Namespace) -> list[tuple[str, str, Build]]:
    """Name, precision, and what builds it: one after the other, as none is used after the next is built."""
    cpu, found = torch.device("cpu"), bench_peers.has_diffusers()
    monai = [
        ("MONAI default", "fp32", lambda: bench_peers.monai_step(options, cpu, "fp32")),
        ("MONAI bf16", "bf16", lambda: bench_peers.monai_step(options, cpu, "bf16", fused=True)),
    ]
    diffusers = [
        ("diffusers default", "fp32", lambda: bench_peers.diffusers_step(options, cpu, "fp32")),
        ("diffusers bf16", "bf16", lambda: bench_peers.diffusers_step(options, cpu, "bf16")),
    ]
    return monai + diffusers * found


def _goal(precision: str, options: argparse.Namespace) -> Goal | None:
    """bf16 pays only where the processor is faster in it and the network is wide."""
    wide = min(map(int, options.channels.split(","))) >= 128
    if precision == "bf16":
        return Goal("least", 1.0)
    return Goal("least", 2.5) if wide and auto_settings.gains(torch.device("cpu")) else None


def data(folder: Path, options: argparse.Namespace) -> Part:
    sizes = bench_data.Sizes(32, 160, 1, 2) if options.quick else bench_data.Sizes()
    rates = bench_data.measure(folder, sizes, options.pairs)
    rows = [
        Row(
            f"data: {name} / medgen",
            [each["medgen"] / each[name] for each in rates],
            _data_goal(name),
        )
        for name in rates[0]
        if name != "medgen"
    ]
    shape = f"{len(bench_data.NAMES)} x {sizes.size} x {sizes.size}"
    return Part(
        rows,
        [
            f"data: batches of {bench_data.BATCH} slices of {shape}, one thread, from data that are ready"
        ],
    )


def _data_goal(name: str) -> Goal | None:
    return Goal("least", 10) if "CacheDataset" in name and "lean" not in name else None


def crops(folder: Path, options: argparse.Namespace) -> Part:
    sizes = bench_crops.Sizes(32, 16, 2, 8) if options.quick else bench_crops.Sizes()
    rates = bench_crops.measure(folder, sizes, max(2, options.pairs // 2))
    rows = [
        Row(f"crops: {name} / medgen", [each["medgen"] / each[name] for each in rates], Goal("least", 10))
        for name in rates[0]
        if name != "medgen"
    ]  # fmt: skip
    of = f"of {sizes.crop} px of volumes of {sizes.size} px, a scan and its mask"
    return Part(rows, [f"crops: {of}, half around lesions, one thread, from data that are ready"])


def fewer(options: argparse.Namespace, share: int) -> argparse.Namespace:
    """For what takes long: half the size a side, and one pair for `share` pairs."""
    return argparse.Namespace(
        **{**vars(options), "size": options.size // 2, "pairs": max(2, options.pairs // share)}
    )


def sampling(folder: Path, options: argparse.Namespace) -> Part:
    device, options = default_device(), fewer(options, 4)
    parts = build(bench_latent.recipe(folder, options), device)
    ours = bench_latent.generating(parts, options)
    ddpm = bench_peers.ancestral(parts.network.eval(), options, device, SAMPLED)
    for each in (ours, ddpm):
        seconds(each, 1, False)
    scale = bench_peers.STEPS / SAMPLED
    ratios = [scale * ratio for ratio in compare(ddpm, ours, options.pairs, 1, False)]
    note = f"sampling: {options.size} px, same network; DDPM takes {scale:g} times as long as {SAMPLED} of its steps"
    return Part([Row(f"sampling: DDPM 1000 steps / medgen {options.steps} steps", ratios)], [note])


def latent(folder: Path, options: argparse.Namespace) -> Part:
    options = fewer(options, 3)
    stepping, sampled = bench_latent.measure(folder, options)[0].values()
    rows = [
        Row("latent: step that encodes / step from the cache", stepping),
        Row("latent: sampling in pixels / in latents", sampled),
    ]
    return Part(
        rows,
        [
            f"latent: {options.size} px, autoencoder ({options.autoencoder}), a quarter of the size a side"
        ],
    )


def ranks(folder: Path, options: argparse.Namespace) -> Part:
    options = fewer(options, 2)
    row = Row(
        "ranks: two processes / two ranks",
        bench_ranks.weak_scaling(folder, options),
        Goal("least", 0.85),
    )
    images = f"{options.batch} images of {options.size} px a step each"
    return Part([row], [f"ranks: gloo, one thread each, {images}, in turn with the processes"])


def startup(folder: Path, options: argparse.Namespace) -> Part:
    del folder
    commands = {"medgen --help": ["--help"], "medgen plugins list": ["plugins", "list"]}
    pairs = 2 if options.quick else 10
    rows = [
        Row(f"start-up: {name}, beyond python", _beyond(given, pairs), unit=" s")
        for name, given in commands.items()
    ]
    return Part(
        rows,
        ["start-up: seconds of the command less those of `python -c pass`, one after the other"],
    )


def _beyond(arguments: Sequence[str], pairs: int) -> list[float]:
    return [_seconds("-m", "medgen", *arguments) - _seconds("-c", "pass") for _ in range(pairs)]


def _seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def saving(folder: Path, options: argparse.Namespace) -> Part:
    rows = bench_faults.saving(folder, options.megabytes, options.pairs)
    note = f"saving: {options.megabytes} MB; medgen checks, syncs and reads back what it writes, and keeps the last"
    return Part([Row(f"saving: {name}", ratios) for name, ratios in rows.items()], [note])


PARTS = {
    each.__name__: each
    for each in (step, volumes, peers, data, crops, sampling, latent, ranks, startup, saving)
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pairs", type=int, default=12, help="measurements of the step; other rows take fewer"
    )
    parser.add_argument("--count", type=int, default=1, help="steps in a measurement")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument(
        "--size", type=int, default=128, help="of the images, as the recipes have it"
    )
    parser.add_argument("--steps", type=int, default=25, help="of the sampler")
    parser.add_argument("--channels", default="128,256,256")
    parser.add_argument("--autoencoder", default="32,64,128", help="its widths")
    parser.add_argument("--precision", default="bf16", help="medgen's own")
    parser.add_argument("--megabytes", type=int, default=100, help="size of a checkpoint")
    parser.add_argument(
        "--only", default=",".join(PARTS), metavar="NAME,...", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument(
        "--quick", action="store_true", help="sizes that say nothing, to see that it works"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.only.split(",")) - set(PARTS):
        parser.error(
            f"--only: got {', '.join(sorted(unknown))}, expected some of {', '.join(PARTS)}"
        )
    return argparse.Namespace(**{**vars(options), **QUICK}) if options.quick else options


def main() -> None:
    options, began = parse(sys.argv[1:]), time.monotonic()
    console.out.quiet = True
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # bench_gpu.py is for GPUs
    parts = []
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MEDGEN_CACHE"] = f"{folder}/cache"
            parts.append(PARTS[name](Path(folder), options))
        print(f"{name}: done after {time.monotonic() - began:.0f} s", flush=True)
    lines = [row.cells() for part in parts for row in part.rows]
    what = (
        f"unet ({options.channels}), {options.size} px, batch {options.batch}, {options.precision}"
    )
    about = [*report.machine(), f"{what}; {time.monotonic() - began:.0f} s in all"]
    notes = [note for part in parts for note in part.notes]
    report.show(report.COLUMNS, lines)
    print(*about, *notes, sep="\n")
    if options.write:
        report.write(options.write, "Results", about, report.markdown(report.COLUMNS, lines), notes)


if __name__ == "__main__":
    main()
