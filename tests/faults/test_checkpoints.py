"""Killed at any moment, on a disk that is full or damaged: a run is always resumed, and ends as if nothing had been.

Covers: medgen.run.room, medgen.run.saving.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from faults.forkserver import HANG, Server, differences
from faults.variants import SMALL, overrides

from medgen.run import checkpoint, run, saving

SHORT = (*SMALL, "training.val_batches=1", "callbacks.progress.every_steps=7")
PLAIN = (*SHORT, "training.warmup_steps=5")


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path)


@pytest.fixture
def common(tiny):
    return ("bravo_rflow", *tiny, *PLAIN)


# Killed


EVERY = (
    "training.steps=12",
    "training.epoch_steps=5",
    "callbacks.checkpoints.every_steps=2",
)


@pytest.mark.parametrize(
    ("count", "name"),
    [
        (6, "bravo_rflow"),
        (4, "vae_bravo"),
        (4, "bravo_rflow_latent"),
        pytest.param(1000, "bravo_rflow", marks=pytest.mark.slow),
        pytest.param(100, "vae_bravo", marks=pytest.mark.slow),
        pytest.param(100, "insert_rflow", marks=pytest.mark.slow),
        pytest.param(100, "bravo_rflow_latent", marks=pytest.mark.slow),
        pytest.param(20, "bravo_rflow_3d", marks=pytest.mark.slow),
        pytest.param(20, "vae_bravo_3d", marks=pytest.mark.slow),
        pytest.param(20, "bravo_rflow_latent_3d", marks=pytest.mark.slow),
        pytest.param(100, "joint_rflow", marks=pytest.mark.slow),
    ],
)
@pytest.mark.row("K1")
def test_a_run_that_is_killed_at_random_moments_ends_bit_for_bit_as_one_that_was_not(
    count, name, server, common, autoencoder, tmp_path
):
    common = (name, *common[1:], *overrides(name, autoencoder))
    whole, folder, chance = tmp_path / "whole", tmp_path / "killed", random.Random(count)
    assert server.run("train", *common, *EVERY, f"run.dir={whole}").code == 0
    began = time.monotonic()
    assert server.run("train", *common, *EVERY, f"run.dir={tmp_path}/again").code == 0
    longest, kills, ends = time.monotonic() - began, 0, 0
    while kills < count or not ends:
        child = server.start("train", *common, *EVERY, f"run.dir={folder}", "--resume", "auto")
        if (
            kills % 2
        ):  # much of it is spent before the first step; and the machine may have become slower
            wait_for_a_save(child, folder)
        if kills < count:
            child.process.join(chance.uniform(0.01, (0.2 if kills % 2 else 0.9) * longest))
            child.process.kill()
        ended = child.wait()
        assert ended.code in (0, -9), ended.err
        kills += ended.code == -9
        if (folder / "latest.pt").exists():
            checkpoint.load(folder / "latest.pt")
        if ended.code == 0:
            assert differences(whole, folder) == []
            ends += 1
            shutil.rmtree(folder)


def wait_for_a_save(child, folder):
    """Until `latest.pt` is another file, or the process has ended."""

    def saved():
        return (folder / "latest.pt").stat().st_ino if (folder / "latest.pt").exists() else 0

    before, limit = saved(), time.monotonic() + HANG
    while saved() == before and child.process.is_alive():
        assert time.monotonic() < limit
        time.sleep(0.005)


POINTS = ("open", "write", "fsync", "fsynced", "link", "kept", "replace", "replaced", "prune")


def die_in_save(point: str, save: int) -> None:
    """End the process at a point of the save with this number, as a SIGKILL there would."""
    saves = []
    real = {name: getattr(os, name) for name in ("fsync", "link", "replace")}

    def die(*here: str) -> None:
        if len(saves) == save and point in here:
            os._exit(137)

    class Half:
        def __init__(self, file):
            self.file, self.count = file, 0

        def write(self, data):
            self.count += 1
            if self.count == 20:
                self.file.flush()
                die("write")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    def opened(path, mode):
        if mode != "wb" or path.name.endswith("room"):  # it is read, or room is tried
            return open(path, mode)
        saves.append(path)
        file = open(path, mode)  # noqa: SIM115 - closed by `__exit__`
        die("open")
        return Half(file)

    def fsync(handle):
        die("fsync")
        real["fsync"](handle)
        die("fsynced")

    def link(*names):
        die("link")
        real["link"](*names)

    def replace(source, target):
        die(*(("replace",) if str(target).endswith("latest.pt") else ()))
        real["replace"](source, target)
        die(
            "replaced"
            if str(target).endswith("latest.pt")
            else "kept"
            if str(target).endswith("prev.pt")
            else ""
        )

    unlink = Path.unlink

    def prune(self, missing_ok=False):
        if self.name.startswith("epoch_"):
            die("prune")
        unlink(self, missing_ok)

    checkpoint.open = opened  # type: ignore[attr-defined]
    os.fsync, os.link, os.replace, Path.unlink = fsync, link, replace, prune


TWICE = ("training.steps=4", "training.epoch_steps=2", "callbacks.checkpoints.every_epochs=1")
TWICE += ("callbacks.checkpoints.keep=1",)


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """A run of two epochs of which the newest is kept, that nothing disturbed."""
    return train(tmp_path_factory.mktemp("undisturbed") / "whole", "bravo_rflow", (*PLAIN, *TWICE))


# saves: 1 at the start, then best, epoch, latest of the first epoch, and of the second; only epochs are pruned
@pytest.mark.parametrize(
    ("point", "save"),
    [
        *((point, 6 if point == "prune" else 7) for point in POINTS),
        *(pytest.param(p, 4, marks=pytest.mark.slow) for p in POINTS if p != "prune"),
    ],
)
@pytest.mark.row("K2")
def test_a_run_that_is_killed_inside_a_save_has_the_old_checkpoint_or_the_new_one(
    point, save, server, common, whole, tmp_path
):
    options = (*TWICE, f"run.dir={tmp_path}/r")
    assert server.run("train", *common, *options, hook=die_in_save, given=(point, save)).code == 137
    checkpoint.load(tmp_path / "r/latest.pt")
    assert server.run("train", "--resume", tmp_path / "r").code == 0
    assert differences(whole, tmp_path / "r") == []
    assert sorted(path.name for path in (tmp_path / "r").glob("*.pt")) == sorted(
        path.name for path in whole.glob("*.pt")
    )
    assert list((tmp_path / "r").glob(".tmp-*")) == []


# Damaged


@pytest.fixture(scope="module")
def once(train, tmp_path_factory):
    options = ("training.steps=4", "callbacks.checkpoints.every_steps=1")
    options += ("training.validate_every=0",)
    return train(tmp_path_factory.mktemp("once") / "trained", "bravo_rflow", (*PLAIN, *options))


@pytest.fixture
def trained(once, tmp_path):
    """A run of four steps, for each test a copy of its own."""
    return shutil.copytree(once, tmp_path / "trained")


DAMAGES = {
    "flipped": lambda data: data[:9000] + bytes([data[9000] ^ 1]) + data[9001:],
    "cut": lambda data: data[: len(data) // 3],
    "empty": lambda data: b"",
    "a web page": lambda data: b"<!DOCTYPE html><html><body>404</body></html>",
    "an LFS pointer": lambda data: (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.row("K3")
def test_a_damaged_latest_is_said_once_and_prev_is_used(damage, trained, medgen, tmp_path):
    whole = tmp_path / "whole"
    shutil.copytree(trained, whole)
    path, step = trained / "latest.pt", checkpoint.load(trained / "prev.pt")["position"]["step"]
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    result = medgen("train", "--resume", trained)
    assert result.code == 0, result.err
    assert len(problems(result)) == 1
    assert f"Using prev.pt (step {step})" in result.err
    assert differences(whole, trained) == []


@pytest.mark.row("K3")
def test_if_latest_and_prev_are_damaged_both_are_named_and_nothing_starts_from_0(trained, medgen):
    for name in ("latest.pt", "prev.pt"):
        (trained / name).write_bytes(b"")
    for result in (
        medgen("train", "--resume", trained),
        medgen("train", "--resume", trained, "training.steps=9"),
    ):
        assert result.code == 4
        assert [name in result.err for name in ("latest.pt", "prev.pt")] == [True, True]


# Full


def failing(patch, code, times):
    """Let so many writes of checkpoints fail."""
    left, real = [times], checkpoint._write

    def write(full, temporary):
        if full["position"]["step"] and left[0]:
            left[0] -= 1
            raise OSError(code, os.strerror(code))
        real(full, temporary)

    patch.setattr(checkpoint, "_write", write)
    patch.setattr(saving, "RETRY_AFTER", (0.0, 0.0, 0.0))


FULL = ("training.steps=3", "callbacks.checkpoints.every_steps=1", "training.validate_every=0")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
@pytest.mark.row("K4")
def test_a_disk_that_stays_full_stops_the_run_with_the_old_checkpoint_whole(
    code, medgen, common, tmp_path, monkeypatch
):
    failing(monkeypatch, code, 4)
    result = medgen("train", *common, *FULL, f"run.dir={tmp_path}/r")
    assert result.code == 8
    assert f"latest.pt: {os.strerror(code)} (needs" in result.err
    assert result.err.count("Trying again") == 3
    assert checkpoint.load(tmp_path / "r/latest.pt")["position"]["step"] == 0
    assert list((tmp_path / "r").glob(".tmp-*")) == []


@pytest.mark.row("K4")
def test_a_disk_that_is_full_for_a_moment_costs_nothing(medgen, common, tmp_path, monkeypatch):
    failing(monkeypatch, errno.ENOSPC, 3)
    assert medgen("train", *common, *FULL, f"run.dir={tmp_path}/r").code == 0
    assert checkpoint.load(tmp_path / "r/latest.pt")["position"]["step"] == 3


def limit_files(size: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.row("K5")
def test_a_place_that_is_too_small_is_refused_before_the_first_step(
    server, medgen, common, tmp_path, monkeypatch
):
    once = ("training.steps=1", "training.validate_every=0", "training.epoch_steps=9")
    assert medgen("train", *common, *once, f"run.dir={tmp_path}/r").code == 0
    size = (tmp_path / "r/prev.pt").stat().st_size
    # large enough for the state before the first step, which has no moments yet, but not for what follows
    result = server.run(
        "train", *common, *FULL, f"run.dir={tmp_path}/s", hook=limit_files, given=(size + 4000,)
    )
    assert result.code == 8, result.err
    assert "File too large (needs" in result.err
    assert (tmp_path / "s/metrics.jsonl").read_text() == ""
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    result = medgen("train", *common, *FULL, f"run.dir={tmp_path}/t")
    assert (result.code, "disk full (needs" in result.err) == (8, True)


@pytest.mark.row("K6")
def test_a_folder_that_cannot_be_written_or_goes_away_is_said_in_one_line(
    medgen, common, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        result = medgen("train", *common, *FULL, f"run.dir={folder}")
        assert (result.code, len(problems(result))) == (8, 1)
    monkeypatch.setattr(saving, "RETRY_AFTER", ())
    step = run.TrainingRun.stop_agreed

    def gone(self):
        if self.step == 1:
            shutil.rmtree(self.dir)
        return step(self)

    monkeypatch.setattr(run.TrainingRun, "stop_agreed", gone)
    result = medgen("train", *common, *FULL, f"run.dir={tmp_path}/r")
    assert (result.code, len(problems(result))) == (8, 1)
    assert "No such file" in problems(result)[0]


def problems(result):
    """What is said to be wrong; the first run of a session also says that it reads the scans, and what is odd there."""
    lines = [line for line in result.err.splitlines() if line.startswith("medgen: ")]
    return [line for line in lines if not line.startswith("medgen: warning: data:")]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
@pytest.mark.row("K6")
def test_a_folder_that_may_only_be_read_is_said_in_one_line(
    code, medgen, common, tmp_path, monkeypatch
):
    """By errors from the system's calls, as permissions do not keep root from writing."""
    assert medgen("train", *common, *FULL, f"run.dir={tmp_path}/r").code == 0
    before = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("*") if path.is_file()
    }
    mkdir = os.mkdir

    def refusing(real):
        def call(path, *arguments, **keywords):
            mode = arguments[0] if arguments else keywords.get("mode", "r")
            writes = (
                mode & (os.O_WRONLY | os.O_RDWR)
                if isinstance(mode, int)
                else set("wax+") & set(mode)
            )
            if str(path).startswith(str(tmp_path)) and (writes or real is mkdir):
                raise OSError(code, os.strerror(code), str(path))
            return real(path, *arguments, **keywords)

        return call

    for owner, name in ((builtins, "open"), (os, "open"), (os, "mkdir"), (io, "open")):
        monkeypatch.setattr(owner, name, refusing(getattr(owner, name)))
    results = [
        medgen("train", *common, *FULL, f"run.dir={tmp_path}/s"),
        medgen("train", "--resume", tmp_path / "r", "training.steps=5"),
    ]
    monkeypatch.undo()
    assert [each.code for each in results] == [8, 8], results
    assert all(os.strerror(code) in each.err.splitlines()[-1] for each in results), results
    assert before == {path: path.stat().st_mtime_ns for path in before}


def kill_a_worker(pid_file: str, seen: bool) -> None:
    """In a forked process: a worker is killed before it has read anything; seen: once its memory is known."""
    from multiprocessing.context import SpawnProcess

    from faults.filling import blocked

    from medgen.data.store import processes

    results, measure, start = processes.results, processes.Watch._measure, SpawnProcess.start

    def kill(pid):
        if not Path(pid_file).exists():
            Path(pid_file).write_text(str(pid))
            os.kill(pid, signal.SIGKILL)

    def starting(self):
        start(self)
        kill(self.pid)

    def measuring(self, pid):
        measure(self, pid)
        if self.held.get(pid):
            kill(pid)

    processes.results = lambda _, jobs, workers: results(blocked, jobs, workers)
    if seen:
        processes.Watch._measure = measuring
    else:
        processes.Watch._measure, SpawnProcess.start = (lambda *_: None), starting


@pytest.mark.parametrize(
    ("seen", "memory"),
    [(True, r" while it held \S+ GB"), (False, r" \(how much memory it held is not known\)")],
)
@pytest.mark.row("K9")
def test_a_killed_process_that_reads_scans_is_told_and_what_to_do(
    seen, memory, server, common, tmp_path, monkeypatch
):
    monkeypatch.setenv("MEDGEN_CACHE", str(tmp_path / "cache"))
    options = (*common, *FULL, f"run.dir={tmp_path}/r", "data.workers=2")
    ended = server.run("train", *options, hook=kill_a_worker, given=(str(tmp_path / "pid"), seen))
    assert ended.code == 7, ended
    pid, last = (tmp_path / "pid").read_text(), ended.err.splitlines()[-1]
    said = f"medgen: data.workers: process {pid}, one of 2 that read the scans, was killed by SIGKILL{memory}"
    assert re.fullmatch(
        rf"{said}, most likely .*\. Set data\.workers lower, or ask for more memory.*", last
    ), ended.err
    assert "Traceback" not in ended.err
    assert server.run("train", *common, *FULL, f"run.dir={tmp_path}/r2", "data.workers=1").code == 0


@pytest.mark.row("K9")
def test_a_full_shared_memory_is_told(medgen, common, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("MEDGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", full)
    ended = medgen("train", *common, f"run.dir={tmp_path}/r", "data.workers=2")
    said = "medgen: /dev/shm: No space left on device. Free some of it, or set data.workers=1."
    assert (ended.code, ended.err.splitlines()[-1]) == (7, said)


@pytest.mark.row("K8")
def test_only_epochs_that_the_run_wrote_are_deleted_and_only_once_a_newer_one_is_there(tmp_path):
    from medgen_builtins.callbacks._checkpoints import Saving, Times

    def saving(keep):
        return Saving(
            Times(every_steps=0, every_minutes=0.0, every_epochs=1),
            keep,
            metric="loss/val",
            gain=False,
        )

    chance = random.Random(0)
    for number in range(300):
        folder = tmp_path / str(number)
        folder.mkdir()
        foreign = {
            f"epoch_{chance.randrange(100, 200):05d}.pt",
            "epoch_00001_copy.pt",
            "best.pt",
            "latest.pt",
        }
        for name in foreign:
            (folder / name).write_text("")
        keep, last = chance.randint(1, 4), chance.randint(1, 9)
        saver = saving(keep)
        sequence = Fake(folder)
        for epoch in range(1, last + 1):
            sequence.epochs_ended = epoch
            saver._save_epoch(sequence)
            if chance.random() < 0.3:  # killed, and resumed with the state of a moment ago
                state, saver = saver.state_dict(), saving(keep)
                saver.load_state_dict(state)
        written = {f"epoch_{epoch:05d}.pt" for epoch in range(max(1, last - keep + 1), last + 1)}
        assert {path.name for path in folder.iterdir()} == foreign | written


class Fake:
    """A run that only saves."""

    def __init__(self, folder):
        self.dir, self.epochs_ended = folder, 0

    def save(self, name):
        (self.dir / name).write_text("")
