"""Rows of measurements, as a table for a terminal and for a file, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch
from bench_step import interval
from rich.console import Console
from rich.table import Table

UNITS = ("amx_bf16", "avx512_bf16")
"""What a CPU says that multiplies matrices or pairs of numbers in bf16."""


class Goal(NamedTuple):
    """What the median is to be: at most or at least `value`."""

    relation: str
    value: float

    def __str__(self) -> str:
        return f"at {self.relation} {self.value:g}"

    def verdict(self, median: float) -> str:
        """Whether the median is that, else by how much it is not."""
        away = median / self.value - 1 if self.relation == "most" else 1 - median / self.value
        return "met" if away <= 0 else f"missed by {away:.1%}"


class Row(NamedTuple):
    """Ratios, or seconds where `unit` says so, each from a pair that was measured side by side."""

    name: str
    values: Sequence[float]
    goal: Goal | None = None
    unit: str = ""

    def cells(self) -> list[str]:
        """As `COLUMNS`."""
        median, low, high = interval(list(self.values))
        digits = 3 if abs(median) < 5 else 1
        spread = f"{low:.{digits}f} to {high:.{digits}f}"
        verdict = self.goal.verdict(median) if self.goal else ""
        return [
            self.name, f"{median:.{digits}f}{self.unit}", spread, str(len(self.values)), str(self.goal or ""), verdict
        ]  # fmt: skip


COLUMNS = ("A / B: time of A over time of B", "median", "95 % interval", "pairs", "goal", "")


def show(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """On the terminal."""
    table = Table(*columns)
    for line in lines:
        table.add_row(*line)
    Console(width=140).print(table)


def markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The same, for a file."""
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def write(path: Path, title: str, about: Sequence[str], table: str, notes: Sequence[str]) -> None:
    """A file of results: where and how they were measured, the table, and what to know of its rows."""
    command = shlex.join(
        ["python", *(os.path.relpath(arg) if os.path.exists(arg) else arg for arg in sys.argv)]
    )
    lines = [f"- {each}" for each in (*about, f"{date.today()}, `{command}`")]
    text = "\n".join([f"# {title}\n", *lines, "", table, *(f"- {note}" for note in notes)])
    path.write_text(text.rstrip() + "\n")


def machine() -> list[str]:
    """Processor, cores, its bf16 units, memory, and versions."""
    has = [f"{name} {'yes' if name in _cpuinfo('flags').split() else 'no'}" for name in UNITS]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    name = _cpuinfo("model name") or platform.machine()
    return [
        f"{name}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads, {', '.join(has)}",
        f"{pages / 2**30:.0f} GiB of memory, {platform.system()}",
        f"Python {platform.python_version()}, torch {torch.__version__}",
    ]


def _cpuinfo(key: str) -> str:
    """Of the first core; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), ""
    )
