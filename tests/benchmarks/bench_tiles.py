"""Time and memory of a whole volume that is encoded and decoded in tiles, by the autoencoder of `vae_bravo_3d`.

    python tests/benchmarks/bench_tiles.py [--size 192 224 192] [--tile 64]

Nothing but the volume and its latents is held besides what a tile takes: at most 4 GB is asked of the size above.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from medgen_builtins.spaces._codec import Codec
from medgen_builtins.spaces.latent import Tile

from medgen.config.recipe import load
from medgen.training import device_memory

RECIPE = Path(__file__).parents[2] / "recipes/vae_bravo_3d.toml"
MOST = 4e9
"""Bytes that a process may have at its peak."""
CPU = torch.device("cpu")


class Taken(NamedTuple):
    """Seconds, and bytes of the whole process at its peak."""

    encoding: float
    decoding: float
    memory: float


def measure(size: Sequence[int], tile: int, overrides: Sequence[str] = ()) -> Taken:
    """Encode and decode a volume of `size` voxels in tiles of `tile` px."""
    recipe = load(RECIPE, ["losses.perceptual=false", *overrides])
    codec = Codec("", recipe.network.build(1, 1, 3), 1, 1, CPU)
    codec.tiles = Tile(size=tile).tiles(codec.autoencoder.factor, 3)
    device_memory.forget(CPU)
    with torch.no_grad():
        began = time.perf_counter()
        mean, _ = codec.moments(torch.rand(1, 1, *size) * 2 - 1)
        between = time.perf_counter()
        made = codec.decode(mean)
        ended = time.perf_counter()
    assert made.shape[2:] == tuple(size)
    return Taken(between - began, ended - between, device_memory.peak(CPU))


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of tiles.")
    parser.add_argument("--size", type=int, nargs=3, default=(192, 224, 192), help="voxels")
    parser.add_argument("--tile", type=int, default=64, help="px, edge of a tile")
    options = parser.parse_args()
    taken = measure(options.size, options.tile)
    shape = " x ".join(map(str, options.size))
    print(f"{shape} in tiles of {options.tile}, {torch.get_num_threads()} threads")
    print(f"encoding {taken.encoding:.0f} s, decoding {taken.decoding:.0f} s")
    verdict = "met" if taken.memory <= MOST else "missed"
    print(f"peak     {taken.memory / 1e9:.2f} GB, at most {MOST / 1e9:g}: {verdict}")


if __name__ == "__main__":
    main()
