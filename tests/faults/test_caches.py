"""The slice store is complete or absent, whoever is killed while it is made, and never of other sources or rules."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.context import BaseContext
from pathlib import Path

import attrs
import numpy as np
import pytest
from data.cohort import write_cohort
from faults.filling import CHANNELS, everything, fill, opened, wanted
from faults.forkserver import HANG, PRELOAD

from medgen.api.tables import DataSettings, MaskSettings
from medgen.data.store import cache_folder, file_memo
from medgen.data.store import store as store_module
from medgen.errors import OutOfMemoryError, StorageError
from medgen.system import file_systems


@pytest.fixture
def scans(tmp_path) -> Path:
    return write_cohort(tmp_path / "scans", 6, channels=CHANNELS)


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def stores(cache: Path) -> list[Path]:
    return sorted(
        path
        for path in cache.iterdir()
        if path.is_dir() and path.name.startswith(("slices-", "volumes-"))
    )


@pytest.fixture(params=[2, pytest.param(3, marks=pytest.mark.slow)], ids=["slices", "volumes"])
def settings(request, scans) -> DataSettings:
    """Of a store of slices, and of one of volumes."""
    return wanted(scans, dimensions=request.param)


# Many processes, one cache


@pytest.fixture
def processes() -> BaseContext:
    """Forked from a server: a fork of this process would copy locks that torch's threads hold."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)  # the server is one for all tests
    return context


@pytest.mark.row("C1")
def test_eight_processes_fill_one_cache_and_one_is_killed(settings, cache, tmp_path, processes):
    """All that live read the same bytes, as alone, from one store; the killed one leaves no part of a store."""
    expected = everything(opened(settings, tmp_path / "alone"))
    start, log, answers = (
        processes.Event(),
        tmp_path / "log",
        [tmp_path / f"answer-{number}" for number in range(8)],
    )
    killed = processes.Process(target=fill, args=(settings, cache, log, start, answers[0], 3))
    others = [
        processes.Process(target=fill, args=(settings, cache, log, start, each))
        for each in answers[1:]
    ]
    for process in (killed, *others):
        process.start()
    start.set()
    wait_until(answers[0].exists)
    os.kill(killed.pid, signal.SIGKILL)
    for process in (killed, *others):
        process.join(HANG)
    assert killed.exitcode == -signal.SIGKILL
    assert [process.exitcode for process in others] == [0] * 7
    assert {each.read_bytes() for each in answers[1:]} == {expected}
    (store,) = stores(cache)
    assert {path.name for path in store.iterdir()} == {"0", "1", "2", "index.npz"}
    assert len([*cache.glob(".building-*")]) <= 2  # the two that the killed one worked in


@pytest.mark.row("C1")
def test_eight_processes_find_one_damaged_store(settings, cache, tmp_path, processes):
    """Whoever comes first makes it again; nobody fails, and nobody reads the damaged one."""
    expected = everything(opened(settings, cache))
    (store,) = stores(cache)
    flip(store / "0", 12345)
    start, log, answers = (
        processes.Event(),
        tmp_path / "log",
        [tmp_path / f"answer-{number}" for number in range(8)],
    )
    others = [
        processes.Process(target=fill, args=(settings, cache, log, start, each)) for each in answers
    ]
    for process in others:
        process.start()
    start.set()
    for process in others:
        process.join(HANG)
    assert [process.exitcode for process in others] == [0] * 8
    assert {each.read_bytes() for each in answers} == {expected}
    assert " store is damaged (0 has another checksum than when it was written)" in log.read_text()


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("bits", [30, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.row("C1")
def test_no_flipped_bit_and_no_cut_in_a_store_is_read(bits, settings, cache, capsys):
    """A bit changed anywhere in a store, or a part of a file missing: it is made again, once, with a warning."""
    expected = everything(opened(settings, cache))
    random, made = np.random.default_rng(0), []
    build = store_module.build
    (store,) = stores(cache)
    files = {path.name: path.read_bytes() for path in store.iterdir()}

    def restore(sources, wanted, folder, progress):
        """Stands for making it again: the same bytes at once."""
        made.append(folder)
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)

    store_module.build = restore
    try:
        for name in [*files] * 3 + ["index.npz"] * bits:
            made.clear()
            flip(store / name, int(random.integers(len(files[name]) * 8)))
            assert everything(opened(settings, cache)) == expected
            assert len(made) == ("damaged" in capsys.readouterr().err) <= 1
        for name, data in files.items():
            (store / name).write_bytes(data[: random.integers(len(data))])
            assert everything(opened(settings, cache)) == expected
            assert "damaged" in capsys.readouterr().err
    finally:
        store_module.build = build


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.row("C1")
def test_a_killed_process_leaves_no_workers(begun, tmp_path):
    """Workers that read scans end with the process that they read for, also if they had not begun to."""
    code = """
import sys
from pathlib import Path
from faults.filling import begun
from medgen.data.store import processes
with processes.results(begun, [Path(each) for each in sys.argv[1:]], 2) as results:
    next(results)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    files = [tmp_path / "1", tmp_path / "2"]
    with subprocess.Popen([sys.executable, "-c", code, *files], env=environment) as parent:
        wait_until(lambda: len(children(parent.pid)) == 3)  # with the resource tracker
        wait_until(lambda: not begun or all(each.exists() for each in files))
        workers = children(parent.pid)
        parent.kill()
    wait_until(lambda: not any(map(alive, workers)))


def wait_until(condition):
    limit = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    tasks = Path("/proc", str(pid), "task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path("/proc", str(pid), "stat").read_text().split(") ")[1][0] != "Z"
    return False


@pytest.mark.row("C1")
def test_what_a_killed_process_left_is_removed_later(scans, cache):
    """Half a store, and half a memory, of yesterday are swept; those of today may be someone's work."""
    for name, hours in (("old", 48), ("new", 1)):
        (cache / f".building-{name}" / "store").mkdir(parents=True)
        (cache / f".building-digests.json-{name}").write_text("{")
        for path in cache.glob(f".building-*{name}"):
            os.utime(path, (time.time() - hours * 3600,) * 2)
    opened(wanted(scans), cache)
    assert {path.name for path in cache.glob(".building-*")} == {
        ".building-new",
        ".building-digests.json-new",
    }


# What makes another store


@pytest.mark.parametrize(
    "change",
    [
        {"axis": "coronal"},
        {"dimensions": 3},
        {"image_size": 12},
        {"lower": 1.0},
        {"upper": 99.0},
        {"nan": "zero"},
        {"masks": {"seg": MaskSettings(labels=[2])}},
        {"channels": ("flair", "bravo", "seg")},
        {"channels": ("bravo", "seg")},
        {"exclude": [Path("Mets_000")]},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.row("C2")
def test_every_rule_that_makes_slices_is_part_of_the_key(scans, cache, change):
    """Another rule, another store: the first one is not taken for it."""
    first = opened(wanted(scans), cache)
    channels = change.pop("channels", CHANNELS)
    other = opened(attrs.evolve(wanted(scans), **change), cache, channels)
    assert len(stores(cache)) == 2
    assert other.fingerprint != first.fingerprint


@pytest.mark.row("C2")
def test_every_setting_is_known_to_change_slices_or_not_to():
    """A new setting of `[data]` must be put in one of two lists: what is in the key, and what cannot change a slice."""
    in_the_key = {
        "axis",
        "dimensions",
        "image_size",
        "lower",
        "upper",
        "headroom",
        "nan",
        "masks",
        "spacing",
        "crop",
    }
    by_the_sources = {"root", "layout", "files", "exclude"}
    selects_rows = {"person", "min_foreground", "lesion_only", "min_lesion", "val_fraction"}
    refuses_or_allows = {"workers", "max_voxels", "allow_patient_overlap", "accept_changes"}
    of_what_is_read = {"augment", "patch_size", "lesion_patches"}
    names = {each.name for each in attrs.fields(DataSettings)}
    known = in_the_key | by_the_sources | selects_rows | refuses_or_allows | of_what_is_read
    assert names == known


@pytest.mark.row("C2")
def test_another_format_makes_another_store(scans, cache, monkeypatch):
    """A version of medgen that makes slices otherwise finds none of the old ones."""
    opened(wanted(scans), cache)
    monkeypatch.setattr(store_module, "FORMAT", store_module.FORMAT + 1)
    opened(wanted(scans), cache)
    assert len(stores(cache)) == 2


@pytest.mark.parametrize("settled", [2.0, -1.0], ids=["at once", "later"])
@pytest.mark.row("C2")
def test_a_scan_that_changed_is_never_read_from_the_cache(scans, cache, monkeypatch, settled):
    """Its content is the key: whatever its size, time and name, and whether digests are remembered or not."""
    monkeypatch.setattr(file_memo, "SETTLED", settled)
    before = opened(wanted(scans), cache)
    path, other = scans / "Mets_000" / "bravo.nii.gz", scans / "Mets_001" / "bravo.nii.gz"
    times = path.stat()
    kept = path.read_bytes()
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = opened(wanted(scans, allow_patient_overlap=True), cache)
    first, second = (
        after.read(np.flatnonzero(after.patient == number), ("bravo",)) for number in (0, 1)
    )
    assert (first == second).all()
    path.write_bytes(kept)
    assert opened(wanted(scans), cache).fingerprint == before.fingerprint
    assert len(stores(cache)) == 2


MADE = {2: (48, [-0.950195, 0.137939, -0.987793]), 3: (6, [-0.967773, 0.104797, -0.992188])}
"""By axes, how many samples a store has, the mean and spread of their images, and the mean of their masks."""


@pytest.mark.parametrize("axes", MADE)
@pytest.mark.row("C2")
def test_what_a_sample_is_changes_only_with_the_format(axes, scans, cache):
    """If this fails, they are made otherwise than before: raise `store.FORMAT`, then set these numbers anew."""
    store = opened(wanted(scans, dimensions=axes), cache)
    bravo, seg = (store.read(np.arange(len(store)), (channel,)) for channel in ("bravo", "seg"))
    assert (store_module.FORMAT, len(store)) == (4, MADE[axes][0])
    assert [bravo.mean(), bravo.std(), seg.mean()] == pytest.approx(MADE[axes][1], abs=1e-5)


# Unreadable for now

NOT_NOW = [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOMEM]


@pytest.mark.parametrize("code", NOT_NOW, ids=errno.errorcode.get)
@pytest.mark.parametrize("where", ["open", "map"])
def test_a_store_that_cannot_be_opened_now_is_left_alone(
    where, code, scans, cache, monkeypatch, capsys
):
    """Point 24: too many open files, too little memory or a server that is away say nothing of a shared store."""
    opened(wanted(scans), cache)
    (store,) = stores(cache)
    before = {path: path.stat().st_mtime_ns for path in store.iterdir()}
    with monkeypatch.context() as patch:
        owner, name = (cache_folder, "checksum") if where == "open" else (cache_folder.np, "memmap")
        patch.setattr(owner, name, refusing(code))
        memory_ = code == errno.ENOMEM
        with pytest.raises(
            OutOfMemoryError if memory_ else StorageError,
            match="than there is" if memory_ else "is left",
        ):
            opened(wanted(scans), cache)
    assert before == {path: path.stat().st_mtime_ns for path in store.iterdir()}
    assert "damaged" not in capsys.readouterr().err
    opened(wanted(scans), cache)


def refusing(code: int):
    def call(*_, **__):
        raise OSError(code, os.strerror(code))

    return call


def test_a_store_of_which_a_file_is_gone_is_made_again(scans, cache, capsys):
    """Point 24: that is damage."""
    expected = everything(opened(wanted(scans), cache))
    (store,) = stores(cache)
    (store / "1").unlink()
    assert everything(opened(wanted(scans), cache)) == expected
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_memory_mapping_slices_are_read_into_memory(
    code, scans, cache, monkeypatch, capsys
):
    """Point 5: as on folders shared with a virtual machine; told once."""
    monkeypatch.setattr(file_systems, "_told", set())
    expected = everything(opened(wanted(scans), cache))
    monkeypatch.setattr(cache_folder.np, "memmap", refusing(code))
    assert everything(opened(wanted(scans), cache)) == expected
    assert capsys.readouterr().err.count("no memory mapping") == 1


def test_without_a_rename_of_folders_a_store_is_made(scans, cache, monkeypatch):
    """Point 5."""
    monkeypatch.setattr(Path, "rename", refusing(errno.ENOSYS))
    expected = everything(opened(wanted(scans), cache))
    (store,) = stores(cache)
    flip(store / "0", 12345)
    assert everything(opened(wanted(scans), cache)) == expected


def test_what_is_known_of_files_is_not_lost_where_it_cannot_be_read_now(tmp_path, monkeypatch):
    """Point 24: else a moment without a free handle would replace it by what is new."""
    monkeypatch.setattr(file_memo, "SETTLED", -1.0)
    (tmp_path / "scan").write_text("")
    known = file_memo.Memory(tmp_path / "known.json")
    known.recall(tmp_path / "scan")
    known.remember(tmp_path / "scan", 1)
    known.save()
    before = (tmp_path / "known.json").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refusing(errno.EMFILE))
        other = file_memo.Memory(tmp_path / "known.json")
        assert other.recall(tmp_path / "scan", "another question") is None
        other.remember(tmp_path / "scan", 2)
        other.save()
    assert (tmp_path / "known.json").read_text() == before
    assert sorted(os.listdir(tmp_path)) == ["known.json", "scan"]
