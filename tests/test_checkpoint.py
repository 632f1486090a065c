"""One file: written atomically, verified when read.

Covers: medgen.run.archive, medgen.run.tensor_tree.
"""

import builtins
import errno
import io
import os
import zipfile

import pytest
import torch

from medgen.errors import CheckpointError, NotFiniteError, StorageError
from medgen.run import checkpoint, folder

STATE = {
    "network": {"weight": torch.arange(64.0).reshape(8, 8)},
    "position": {"step": 3},
    "list": [{"lr": 0.1}],
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "latest.pt"
    checkpoint.save(STATE, path)
    return path


def test_what_is_saved_is_loaded(saved):
    state = checkpoint.load(saved)
    assert torch.equal(state["network"]["weight"], STATE["network"]["weight"])
    assert state["position"] == {"step": 3}
    assert state["list"] == [{"lr": 0.1}]


def test_anyone_opens_it_with_weights_only(saved):
    assert torch.load(saved, weights_only=True)["position"]["step"] == 3


def test_a_flipped_bit_never_loads_as_other_content(saved):
    data = saved.read_bytes()
    refused = 0
    for number in range(1500):
        place = (number * 7919) % (len(data) * 8)
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        saved.write_bytes(damaged)
        try:
            state = checkpoint.load(saved)
        except CheckpointError:
            refused += 1
            continue
        assert torch.equal(state["network"]["weight"], STATE["network"]["weight"])
        assert state["position"] == {"step": 3}
    assert refused > 500


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=r"latest\.pt"):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    "key", ["network", "position", "position/step", "network/weight", "list/0/lr", "format", "keys"]
)
def test_every_key_that_is_gone_is_named(saved, key):
    state = torch.load(saved, weights_only=True)
    *parents, last = key.split("/")
    inner = state
    for each in parents:
        inner = inner[int(each) if each.isdigit() else each]
    del inner[last]
    torch.save(state, saved)
    with pytest.raises(CheckpointError, match=key):
        checkpoint.load(saved)


def test_a_checkpoint_that_is_not_finite_is_never_written(saved):
    before = saved.read_bytes()
    with pytest.raises(NotFiniteError, match="network/weight"):
        checkpoint.save({"network": {"weight": torch.tensor([1.0, float("nan")])}}, saved)
    assert saved.read_bytes() == before


def test_the_file_before_stays_as_previous(saved, tmp_path):
    before = saved.read_bytes()
    checkpoint.save({**STATE, "position": {"step": 4}}, saved, tmp_path / "prev.pt")
    assert (tmp_path / "prev.pt").read_bytes() == before
    assert checkpoint.load(saved)["position"]["step"] == 4
    assert sorted(os.listdir(tmp_path)) == ["latest.pt", "prev.pt"]


def test_a_failed_write_leaves_the_old_file_and_no_other(saved, tmp_path, monkeypatch):
    before = saved.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        checkpoint.save(STATE, saved)
    assert saved.read_bytes() == before
    assert os.listdir(tmp_path) == ["latest.pt"]


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/canary",)

    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "keys": [], "x": Payload()}, path)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)
    assert not (tmp_path / "canary").exists()


def test_compressed_records_are_refused(saved, tmp_path):
    packed = tmp_path / "packed.pt"
    with (
        zipfile.ZipFile(saved) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(CheckpointError, match="compressed"):
        checkpoint.load(packed)


@pytest.mark.parametrize(
    "code", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO, errno.ESTALE]
)
def test_a_checkpoint_that_cannot_be_read_now_is_not_taken_for_damaged(code, tmp_path, monkeypatch):
    """Point 24: nothing of the run is thrown away by going on with prev.pt."""
    for step in (1, 2):
        checkpoint.save(
            {**STATE, "position": {"step": step}}, tmp_path / "latest.pt", tmp_path / "prev.pt"
        )
    real = io.open

    def refuse(path, *given, **named):
        if str(path).endswith("latest.pt"):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *given, **named)

    monkeypatch.setattr(io, "open", refuse)
    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(StorageError, match=r"latest\.pt: cannot be read .* It is left as it is"):
        folder.latest_state(tmp_path)


def test_too_little_memory_is_not_taken_for_a_damaged_checkpoint(tmp_path, monkeypatch):
    """Point 24."""
    for step in (1, 2):
        checkpoint.save(
            {**STATE, "position": {"step": step}}, tmp_path / "latest.pt", tmp_path / "prev.pt"
        )

    def load(*_, **__):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"
        )

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MemoryError):
        folder.latest_state(tmp_path)
