"""What memory a process has had, and may have.

Covers: medgen.training.device_memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from medgen.training import device_memory

CPU = torch.device("cpu")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
GB = 2**30


@LINUX
def test_a_peak_is_seen_and_can_be_forgotten() -> None:
    device_memory.forget(CPU)
    before = device_memory.peak(CPU)
    taken = torch.ones(64 * 2**20)
    assert device_memory.peak(CPU) >= before + 0.2 * GB
    assert device_memory.room(CPU) >= taken.nbytes
    del taken
    device_memory.forget(CPU)
    assert device_memory.peak(CPU) < before + 0.1 * GB


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that has 50 GiB left, of which this process has 1 in use."""
    monkeypatch.setattr(device_memory, "PROCESS", tmp_path / "self")
    monkeypatch.setattr(device_memory, "MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr(device_memory, "GROUPS", tmp_path / "groups")
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text(
        f"Name:\tpython\nVmHWM:\t {2 * 2**20} kB\nVmRSS:\t {2**20} kB\n"
    )
    (tmp_path / "meminfo").write_text(
        f"MemTotal: {64 * 2**20} kB\nMemAvailable:   {50 * 2**20} kB\n"
    )
    return tmp_path


def write(folder: Path, **numbers: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in numbers.items():
        (folder / f"memory.{name}").write_text(f"{value}\n")


def test_without_limits_it_is_what_the_machine_has_left(machine: Path) -> None:
    assert device_memory.room(CPU) == 51 * GB
    assert device_memory.peak(CPU) == 2 * GB


@pytest.mark.parametrize("inside", [True, False])
def test_a_job_has_what_its_limit_leaves(machine: Path, inside: bool) -> None:
    """Control groups of version 2: a job of 16 GiB, 3 of 7 in use being a cache of files; in a container or not."""
    job = machine / "groups" if inside else machine / "groups/slurm/job_1"
    write(job, max=16 * GB, current=7 * GB, stat=f"anon {4 * GB}\ninactive_file {3 * GB}")
    if not inside:
        write(job / "step_0", max="max", current=GB, stat="inactive_file 0")
    (machine / "self/cgroup").write_text("0::/slurm/job_1/step_0\n")
    assert device_memory.room(CPU) == (1 + 16 - 4) * GB


def test_so_it_has_in_groups_of_version_1(machine: Path) -> None:
    write(
        machine / "groups/memory/job",
        limit_in_bytes=8 * GB,
        usage_in_bytes=9 * GB,
        stat=f"total_inactive_file {GB}",
    )
    (machine / "self/cgroup").write_text("5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n")
    assert device_memory.room(CPU) == GB


def test_where_a_system_does_not_tell_nothing_is_said(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert device_memory.room(CPU) is None
    (machine / "self/status").unlink()
    assert device_memory.peak(CPU) > 0
