"""Files are whole or not there, also where the file system lacks what that is usually done with.

Covers: medgen.system.file_systems.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from medgen.errors import CheckpointError, StorageError
from medgen.run import checkpoint, room
from medgen.system import file_systems, files

LACKING = [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK]
LACKING += [errno.EXDEV, errno.ENOENT, errno.EIO]


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_systems, "_told", set())


def refusing(code: int):
    def call(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return call


def state(step: int) -> dict[str, object]:
    return {"position": {"step": step}}


def steps(folder: Path) -> list[int]:
    """Of those checkpoints that load."""
    found = []
    for name in ("latest.pt", "prev.pt"):
        try:
            found.append(checkpoint.load(folder / name)["position"]["step"])
        except CheckpointError:
            continue
    return found


def watched(patch: pytest.MonkeyPatch, folder: Path) -> list[list[int]]:
    """What loads before and after each rename."""
    seen = []

    def watch(real):
        def call(*given):
            seen.append(steps(folder))
            real(*given)
            seen.append(steps(folder))

        return call

    for name in ("replace", "rename"):
        patch.setattr(os, name, watch(getattr(os, name)))
    return seen


@pytest.mark.parametrize("code", LACKING)
def test_without_hard_links_there_is_always_a_checkpoint_that_loads(
    code, tmp_path, monkeypatch, capsys
):
    """Point 5."""
    monkeypatch.setattr(os, "link", refusing(code))
    checkpoint.save(state(0), tmp_path / "latest.pt", tmp_path / "prev.pt")
    seen = watched(monkeypatch, tmp_path)
    for step in (1, 2, 3):
        checkpoint.save(state(step), tmp_path / "latest.pt", tmp_path / "prev.pt")
        assert steps(tmp_path) == [step, step - 1]
    assert len(seen) == 12
    assert all(seen)
    assert capsys.readouterr().err.count("no hard links") == 1
    assert sorted(os.listdir(tmp_path)) == ["latest.pt", "prev.pt"]


@pytest.mark.parametrize("code", LACKING)
def test_whatever_a_hard_link_meets_with_the_folder_is_probed_to_the_end(
    code, tmp_path, monkeypatch, capsys
):
    """A union mount answers EXDEV, a network folder ENOENT or EIO: the run goes on with a weaker promise."""
    monkeypatch.setattr(os, "link", refusing(code))
    files.probe(tmp_path)
    assert (
        capsys.readouterr().err.count("no hard links: a kill within a save may leave prev.pt alone")
        == 1
    )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_damaged_checkpoint_never_takes_the_place_of_one_that_loads(links, tmp_path, monkeypatch):
    """Point 5: a run that was resumed from prev.pt saves, and may be killed at any moment of that."""
    if not links:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    for step in (0, 1):
        checkpoint.save(state(step), tmp_path / "latest.pt", tmp_path / "prev.pt")
    (tmp_path / "latest.pt").write_bytes(b"damaged")
    seen = watched(monkeypatch, tmp_path)
    checkpoint.save(state(2), tmp_path / "latest.pt", tmp_path / "prev.pt")
    assert all(seen)
    assert steps(tmp_path) == [2, 0]


@pytest.mark.parametrize("code", [errno.EEXIST, errno.EPERM, errno.EOPNOTSUPP])
def test_where_no_rename_goes_over_a_file_there_is_always_a_checkpoint_that_loads(
    code, tmp_path, monkeypatch
):
    """Point 5."""
    rename = os.rename

    def strict(source, target):
        if os.path.exists(target):
            raise OSError(code, os.strerror(code))
        rename(source, target)

    monkeypatch.setattr(os, "replace", strict)
    monkeypatch.setattr(os, "rename", strict)
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    checkpoint.save(state(0), tmp_path / "latest.pt", tmp_path / "prev.pt")
    seen = watched(monkeypatch, tmp_path)
    for step in (1, 2, 3):
        checkpoint.save(state(step), tmp_path / "latest.pt", tmp_path / "prev.pt")
    assert all(seen)
    assert steps(tmp_path) == [3, 2]


def test_a_file_that_was_put_aside_by_a_killed_process_comes_back(tmp_path):
    """Point 5."""
    (tmp_path / ".old-recipe.toml").write_text("[data]")
    assert files.current(tmp_path / "recipe.toml").read_text() == "[data]"
    files.recover(tmp_path)
    assert (tmp_path / "recipe.toml").read_text() == "[data]"
    (tmp_path / ".old-recipe.toml").write_text("older")
    files.recover(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]
    assert files.current(tmp_path / "recipe.toml").read_text() == "[data]"


@pytest.mark.parametrize(
    "code", [errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF]
)
def test_without_a_sync_of_folders_files_are_written(code, tmp_path, monkeypatch, capsys):
    """Point 5."""
    fsync = os.fsync

    def only_files(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(code, os.strerror(code))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", only_files)
    for step in (0, 1):
        checkpoint.save(state(step), tmp_path / "latest.pt", tmp_path / "prev.pt")
    assert steps(tmp_path) == [1, 0]
    assert capsys.readouterr().err.count("no sync of folders") == 1


def test_a_disk_that_fails_is_not_taken_for_a_file_system_that_lacks_something(
    tmp_path, monkeypatch
):
    """Point 5."""
    checkpoint.save(state(0), tmp_path / "latest.pt")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refusing(errno.EIO))
            with pytest.raises(StorageError, match="Input/output error"):
                checkpoint.save(state(1), tmp_path / "latest.pt", tmp_path / "prev.pt")
        assert steps(tmp_path)[0] == 0
    assert os.listdir(tmp_path) == ["latest.pt"]


def test_room_is_reserved_without_fallocate_and_without_a_number_of_free_bytes(
    tmp_path, monkeypatch
):
    """Point 5."""
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(os, "statvfs", refusing(errno.ENOSYS))
    room.reserve(tmp_path, 1000, 4)
    monkeypatch.setattr(os, "posix_fallocate", refusing(errno.EOPNOTSUPP), raising=False)
    room.reserve(tmp_path, 1000, 4)
    monkeypatch.setattr(os, "posix_fallocate", refusing(errno.ENOSPC), raising=False)
    with pytest.raises(StorageError, match="No space left"):
        room.reserve(tmp_path, 1000, 4)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM, errno.EMFILE, errno.EXDEV])
def test_a_folder_that_cannot_be_renamed_is_moved_file_by_file(code, tmp_path, monkeypatch):
    """Point 5: some mounted object stores allow no rename of a folder, or answer EMFILE."""
    (tmp_path / "made").mkdir()
    for name in ("0", "index.npz"):
        (tmp_path / "made" / name).write_text(name)
    monkeypatch.setattr(Path, "rename", refusing(code))
    files.move_folder(tmp_path / "made", tmp_path / "there")
    assert os.listdir(tmp_path) == ["there"]
    assert sorted(os.listdir(tmp_path / "there")) == ["0", "index.npz"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.ESTALE, errno.EIO])
def test_a_file_that_the_system_will_not_show_does_not_count_as_gone(code, tmp_path, monkeypatch):
    """Point 24: else a run would be begun anew on top of one that is there."""
    assert not files.exists(tmp_path / "latest.pt")
    assert not files.exists(tmp_path / "latest.pt" / "below")
    monkeypatch.setattr(os, "stat", refusing(code))
    with pytest.raises(StorageError, match="left as it is"):
        files.exists(tmp_path / "latest.pt")
