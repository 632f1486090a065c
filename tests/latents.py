"""A tiny autoencoder that takes no training, installed as a third party's plugin; and a space that keeps something."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from medgen import seeds
from medgen.api.tables import DataSettings
from medgen.api.values import Mode
from medgen.cli import options
from medgen.config.recipe import load, public_toml
from medgen.data.scans.layouts import mask_names
from medgen.data.store.latent_store import open_latent_store
from medgen.data.store.store import open_store
from medgen.run import checkpoint

BRAVO = Mode(images=("bravo",), condition=("seg",))
CPU = torch.device("cpu")
SOURCES = Path(__file__).parent
Write = Callable[..., Path]


def install(folder: Path, patch: pytest.MonkeyPatch, name: str = "patches") -> None:
    """What pip would leave of the package `medgen_NAME`."""
    shutil.copy(SOURCES / f"medgen_{name}" / f"medgen_{name}.py", folder)
    about = folder / f"medgen_{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: medgen-{name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[medgen]\n{name} = medgen_{name}\n")
    patch.syspath_prepend(str(folder))
    patch.setattr(
        options, "registry", lru_cache(options.registry.__wrapped__)
    )  # what is found is forgotten afterwards


def write_autoencoder(path: Path, mode: str, *overrides: str, seed: int = 0) -> Path:
    """A checkpoint of a `patches` autoencoder of a mode."""
    given = ("network=patches", f"mode={mode}", "training.epochs=1", *overrides)
    recipe = load("bravo_rflow", given)
    built = recipe.mode.build()
    seeds.seed_globals(seed, "init")
    network = recipe.network.build(built.channels, built.channels)
    with torch.no_grad():  # channels of quite different sizes
        network.rotation.weight *= torch.linspace(0.5, 1.5, network.latent_channels).view(
            -1, 1, 1, 1
        )
    state = {"recipe": public_toml(recipe), "network": network.state_dict(), "averaged": None}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(state, path)
    return path


def write_volume_autoencoder(path: Path, *given: str) -> None:
    """A checkpoint of an autoencoder of `vae_bravo_3d` that was never trained."""
    recipe = load("vae_bravo_3d", given)
    seeds.seed_globals(0, "init")
    network = recipe.network.build(1, 1, 3)
    state = {"recipe": public_toml(recipe), "network": network.state_dict(), "averaged": None}
    checkpoint.save(state, path)


class Counting:
    """A space that halves an image's side, keeps two values of each, and counts what it was asked."""

    def __init__(self, key: str = "a"):
        self.key, self.asked = key, 0

    def prepare(self, image):
        self.asked += len(image)
        small = torch.nn.functional.avg_pool2d(image, 2)
        return torch.cat([small, -small], 1)


def store_of(cohort, mode=BRAVO, **changes):
    settings = DataSettings(
        **{"root": cohort, "image_size": 16, "workers": 1, "min_foreground": 0.02, **changes}
    )
    return open_store(settings, mode.names, mask_names(settings))


def fill(cohort, cache, start, answer) -> None:
    os.environ["MEDGEN_CACHE"] = str(cache)
    store = store_of(cohort)
    start.wait()
    cache = open_latent_store(store, BRAVO, Counting(), CPU)
    rows = store.select("train")
    answer.write_bytes(cache.read(rows, np.zeros_like(rows)).numpy().tobytes())
