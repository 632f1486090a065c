"""What `medgen data check` prints and writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from medgen.data.scans.check import Background, Lesions, Report
from medgen.data.scans.layouts import SPLITS
from medgen.errors import Problem, printable

PERCENTILES = (5, 50, 95)


def show(report: Report, console: Console) -> None:
    """Print a table of faults and warnings, then what there is, then the counts."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "file", "what", "what to do"):
        rows.add_column(title, overflow="fold", no_wrap=not title)
    for kind, found in (("fault", _each(report.faults)), ("warning", _alike(report.warnings))):
        for file, what, fix in found:
            rows.add_row(kind, *map(printable, (file, what, fix)))
    if rows.row_count:
        console.print(rows)
    for line in _summary(report):
        console.print(printable(line))


def _each(faults: Sequence[Problem]) -> Iterator[tuple[str, str, str]]:
    for fault in faults:
        yield str(fault.where), fault.what, fault.fix


def _alike(warnings: Sequence[Problem]) -> Iterator[tuple[str, str, str]]:
    """What is said of many files is said once."""
    files: dict[tuple[str, str], list[str]] = {}
    for fault in warnings:
        files.setdefault((fault.what, fault.fix), []).append(str(fault.where))
    for (what, fix), (first, *others) in files.items():
        yield f"{first} and {len(others)} more" if others else str(first), what, fix


def _summary(report: Report) -> Iterator[str]:
    for channel, kinds in _kinds(report).items():
        yield f"{channel}: background {', '.join(f'{kind} ({count})' for kind, count in kinds.items())}"
    for name, lesions in report.lesions.items():
        yield f"{name}: {_sizes(lesions)}"
    if report.spacing:
        yield f"slices of {report.spacing:g} mm per pixel"
    if report.exclude:
        yield f"to leave their patients out: 'data.exclude={json.dumps(_excluded(report), ensure_ascii=False)}'"
    splits = Counter(patient.split for patient in report.patients)
    shown = ", ".join(f"{splits[split]} {split}" for split in (*SPLITS, "test") if splits[split])
    counts = [(len(report.faults), "fault"), (len(report.warnings), "warning")]
    files = (
        f"{_count(report.files, 'file')} ({', '.join(report.sources)})"
        if report.files
        else "no file that is read"
    )
    patients = f"{_count(len(report.patients), 'patient')} ({shown})"
    yield ", ".join([patients, files, *(_count(*each) for each in counts)])


def _kinds(report: Report) -> dict[str, dict[str, int]]:
    """Return how many scans of each channel have which background, the most frequent first."""
    kinds: dict[str, Counter[str]] = {}
    for background in report.backgrounds:
        kinds.setdefault(background.channel, Counter())[background.kind] += 1
    return {channel: dict(counts.most_common()) for channel, counts in kinds.items()}


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _sizes(lesions: Lesions) -> str:
    if not lesions.volumes:
        return "no lesions"
    low, middle, high = np.percentile(lesions.volumes, PERCENTILES) / 1000
    shown = f"{_count(len(lesions.volumes), 'lesion')} in {_count(lesions.patients, 'patient')}"
    sizes = f"median {middle:.3g} mL, 5 to 95 %: {low:.3g} to {high:.3g} mL, largest {lesions.volumes[-1] / 1000:.3g} mL"
    return f"{shown}, {sizes}, {lesions.specks:,} of a single voxel"


def as_json(report: Report) -> str:
    """Return all of it, for programs."""
    table = {
        "patients": len(report.patients),
        "files": report.files,
        "channels": report.sources,
        "faults": [_plain(fault, "fault") for fault in report.faults],
        "warnings": [_plain(fault, "warning") for fault in report.warnings],
        "lesions": {name: _lesions(lesions) for name, lesions in report.lesions.items()},
        "backgrounds": _kinds(report),
        "scans": [_scan(background) for background in report.backgrounds],
        "exclude": _excluded(report),
        "spacing": report.spacing or None,
    }
    return json.dumps(table, indent=2, ensure_ascii=True) + "\n"


def _excluded(report: Report) -> list[str]:
    """Return the patients to leave out as `data.exclude` takes them, non-UTF-8 bytes escaped."""
    return [printable(id) for id in report.exclude]


def _plain(fault: Problem, noun: str) -> dict[str, str]:
    return {
        "file": Path(str(fault.where)).as_posix(),
        "patient": fault.patient,
        noun: fault.what,
        "fix": fault.fix,
    }


def _scan(background: Background) -> dict[str, str]:
    file, patient, channel, kind = background
    return {"file": file.as_posix(), "patient": patient, "channel": channel, "background": kind}


def _lesions(lesions: Lesions) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "count": len(lesions.volumes),
        "patients": lesions.patients,
        "specks": lesions.specks,
    }
    if lesions.volumes:
        volumes = np.percentile(lesions.volumes, PERCENTILES).tolist()
        counts["mm3"] = {
            f"{share} %": volume for share, volume in zip(PERCENTILES, volumes, strict=True)
        }
    return counts
