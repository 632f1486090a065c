"""The cache of what a space makes of every image: the same as making it anew, filled once, whole, never stale.

Covers: medgen.data.store.latent_store, medgen.data.store.loader.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from pathlib import Path

import latents
import numpy as np
import pytest
import torch
from data.cohort import write_cohort
from faults.forkserver import HANG, PRELOAD
from latents import BRAVO, CPU, Counting, store_of
from medgen_builtins.spaces.latent import Latent

from medgen.api.values import Mode
from medgen.config.recipe import load
from medgen.data.store import latent_store as prepared_module
from medgen.data.store.latent_store import open_latent_store
from medgen.errors import DataError, StorageError
from medgen.run.assemble import assemble

POOLED = Mode(images=("bravo", "flair"), pooled=True)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def folders(cache: Path) -> list[Path]:
    return sorted(
        each for each in cache.iterdir() if each.is_dir() and each.name.startswith("prepared-")
    )


@pytest.mark.parametrize("mode", [BRAVO, POOLED])
def test_reads_what_the_space_gives_within_the_rounding_of_float16(mode, cohort, own_cache):
    """Each image of a pooled mode is found by itself, in whatever order it is asked for."""
    store, space = store_of(cohort, mode), Counting()
    cache = open_latent_store(store, mode, space, CPU)
    rows = store.select("train")[::-3]
    view = np.arange(len(rows)) % (2 if mode.pooled else 1)
    images = torch.from_numpy(store.read(rows, mode.images)).float()
    images = (
        images[torch.arange(len(rows)), torch.from_numpy(view)][:, None] if mode.pooled else images
    )
    torch.testing.assert_close(
        cache.read(rows, view).float(), Counting().prepare(images), rtol=2**-11, atol=1e-7
    )


def test_it_is_filled_once_and_shown(cohort, own_cache):
    store, space, seen = store_of(cohort), Counting(), []
    for _ in range(2):
        open_latent_store(store, BRAVO, space, CPU, lambda *done: seen.append(done))
    count = len(store.select("train")) + len(store.select("val"))
    assert (space.asked, seen[-1]) == (count, (count, count))


def test_other_slices_another_space_or_another_format_are_never_taken_for_it(
    cohort, own_cache, monkeypatch
):
    keys = [
        len(folders(own_cache))
        for _ in [open_latent_store(store_of(cohort), BRAVO, Counting(), CPU)]
    ]
    open_latent_store(store_of(cohort, val_fraction=0.5), BRAVO, Counting(), CPU)
    open_latent_store(store_of(cohort), BRAVO, Counting("b"), CPU)
    monkeypatch.setattr(prepared_module, "FORMAT", prepared_module.FORMAT + 1)
    open_latent_store(store_of(cohort), BRAVO, Counting(), CPU)
    assert (keys, len(folders(own_cache))) == ([1], 4)


def damage_a_byte(folder: Path) -> None:
    data = bytearray((folder / "samples").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "samples").write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        damage_a_byte,
        lambda folder: os.truncate(folder / "samples", 100),
        lambda folder: (folder / "samples").unlink(),
        lambda folder: (folder / "about.json").write_text("{"),
        lambda folder: (folder / "about.json").write_text("[]"),
        lambda folder: (folder / "about.json").unlink(),
    ],
)
@pytest.mark.row("C1")
def test_damage_is_noticed_said_and_repaired(damage, cohort, own_cache, capsys):
    store, space = store_of(cohort), Counting()
    rows = store.select("train")
    whole = open_latent_store(store, BRAVO, space, CPU).read(rows, np.zeros_like(rows))
    damage(folders(own_cache)[0])
    again = open_latent_store(store, BRAVO, space, CPU).read(rows, np.zeros_like(rows))
    assert torch.equal(whole, again)
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.row("C1")
def test_eight_processes_that_fill_it_at_once_read_the_same(cohort, own_cache, tmp_path):
    """Also when one of them is killed meanwhile."""
    store_of(cohort)
    context = multiprocessing.get_context(
        "forkserver"
    )  # a fork of this process would copy locks of torch's threads
    context.set_forkserver_preload(PRELOAD)
    start, answers = context.Event(), [tmp_path / f"answer-{number}" for number in range(8)]
    processes = [
        context.Process(target=latents.fill, args=(cohort, own_cache, start, each))
        for each in answers
    ]
    for each in processes:
        each.start()
    start.set()
    with contextlib.suppress(ProcessLookupError):
        os.kill(processes[0].pid, signal.SIGKILL)
    for each in processes:
        each.join(HANG)
    assert [each.exitcode for each in processes[1:]] == [0] * 7
    assert len({each.read_bytes() for each in answers[1:]}) == 1
    assert len(folders(own_cache)) == 1


def test_what_is_not_finite_is_refused(cohort, own_cache):
    class Broken(Counting):
        def prepare(self, image):
            return super().prepare(image) / 0

    with pytest.raises(DataError, match="is not finite"):
        open_latent_store(store_of(cohort), BRAVO, Broken(), CPU)
    assert folders(own_cache) == []


def test_a_cache_that_cannot_be_written_is_told(cohort, own_cache, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        StorageError, match=r"the cache of prepared slices cannot be written .* set MEDGEN_CACHE"
    ):
        open_latent_store(
            store_of(cohort), BRAVO, Counting(), CPU, cache=tmp_path / "file" / "cache"
        )


def test_it_names_nobody(tmp_path, own_cache):
    write_cohort(tmp_path / "Kowalczyk", 2)
    open_latent_store(store_of(tmp_path / "Kowalczyk", val_fraction=0.0), BRAVO, Counting(), CPU)
    files = [each for folder in folders(own_cache) for each in folder.iterdir()]
    assert {each.name for each in files} == {"samples", "about.json"}
    assert not any(
        b"Kowalczyk" in each.read_bytes() or b"Mets" in each.read_bytes() for each in files
    )


@pytest.fixture
def latent_run(tiny, tmp_path, monkeypatch):
    """A run in latents, assembled."""
    (tmp_path / "installed").mkdir()
    latents.install(tmp_path / "installed", monkeypatch)
    autoencoder = latents.write_autoencoder(
        tmp_path / "ae.pt", "bravo", "network.patches.logvar=-3.0"
    )
    options = (
        "space=latent", f"space.latent.checkpoint={autoencoder}", "network.unet.attention=[false,false]",
        "training.steps=2", "data.val_fraction=0.3", "callbacks.tensorboard=false",
    )  # fmt: skip
    run = assemble(load("bravo_rflow", [*tiny, *options]), tmp_path)
    yield run
    run.train.close()


def test_what_is_diffused_is_distributed_as_if_every_step_encoded(latent_run):
    """Mean and variance of each channel over the training set agree within 1 % of its variance."""
    run, numbers = latent_run, np.arange(latent_run.train.size)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    drawn = []
    for generator, stored in zip(
        generators,
        (
            run.train.stored(numbers).image.float(),
            run.space.prepare(run.train.read(numbers).image.float()),
        ),
        strict=True,
    ):
        batch = run.train.stored(numbers)
        turn = run.turns["network"]
        drawn.append(
            torch.cat([run.space.encode(stored, turn.draw(generator, batch)) for _ in range(2500)])
        )
    cached, encoded = (each.double().transpose(0, 1).flatten(1) for each in drawn)
    assert ((cached.mean(1) - encoded.mean(1)).abs() < 0.01 * encoded.std(1)).all()
    assert ((cached.var(1) / encoded.var(1) - 1).abs() < 0.01).all()
    torch.testing.assert_close(
        encoded.var(1), torch.ones(16, dtype=torch.float64), rtol=0.01, atol=0
    )


def test_no_encoder_runs_in_training_or_validation(latent_run, monkeypatch):
    from medgen.training.trainer import Trainer
    from medgen.training.validation import validate

    monkeypatch.setattr(
        type(latent_run.space.images), "moments", lambda *_: pytest.fail("an encoder ran")
    )
    Trainer(latent_run).step()
    assert validate(latent_run)["psnr/x0"] > 0


def test_space_and_use_of_the_latent_space_have_one_key_per_autoencoder(tmp_path, monkeypatch):
    (tmp_path / "installed").mkdir()
    latents.install(tmp_path / "installed", monkeypatch)
    files = [
        latents.write_autoencoder(tmp_path / f"{seed}.pt", "bravo", seed=seed) for seed in (0, 1)
    ]
    copy = latents.write_autoencoder(tmp_path / "copy.pt", "bravo", seed=0)
    first, second, same = (Latent(checkpoint=each).build(BRAVO, CPU).key for each in (*files, copy))
    assert (first == same, first == second) == (True, False)
