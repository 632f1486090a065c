"""Results of arms in a folder, a file each, so that a comparison that was killed goes on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medgen.errors import Problem, RecipeError
from medgen.evaluation.arms import Arm, Comparison
from medgen.evaluation.samples import Samples
from medgen.evaluation.worth import Scores
from medgen.system import files

Result = dict[str, Any]


def identity(given: Comparison, segmenter: str) -> dict[str, Any]:
    """Return everything that decides a result besides its arm and repeat; data by their hashes."""
    plain = {"base": given.base, "times": given.times, "steps": given.steps, "seed": given.seed}
    settings = {"settings": repr(given.settings)}
    data = {name: _digest(getattr(given, name)) for name in ("pool", "test", "pairs")}
    return {**plain, "segmenter": segmenter, **settings, **data}


class Results:
    """The folder OUT/results, whose `made_with.json` is the identity of all that lies there."""

    def __init__(self, out: Path, made_with: Mapping[str, Any]):
        """Open or make the folder. Raises RecipeError if it holds results of another comparison."""
        self.folder, self.made_with = out / "results", made_with
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "made_with.json"
        before = _read(path)
        if before is not None and before != made_with:
            keys = sorted(
                key for key in {*before, *made_with} if before.get(key) != made_with.get(key)
            )
            changed = ", ".join(f"{key}: {before.get(key)} -> {made_with.get(key)}" for key in keys)
            what = f"results of another comparison are there ({changed})"
            raise RecipeError(Problem(out, what, "Give what made them, or another --output-dir"))
        if before is None:
            files.write(path, json.dumps(made_with, indent=1) + "\n")

    def path(self, arm: Arm, repeat: int) -> Path:
        """Return the file of one result."""
        return self.folder / f"{re.sub('[^a-z0-9]+', '_', arm.name)}-{repeat}.json"

    def read(self, arm: Arm, repeat: int) -> Result | None:
        """Read a whole result; None has to be made, again where a file is damaged."""
        result = _read(self.path(arm, repeat))
        return (
            result
            if result and (result.get("arm"), result.get("repeat")) == (arm.name, repeat)
            else None
        )

    def missing(self, arms: Sequence[Arm], repeats: int) -> list[tuple[Arm, int]]:
        """Return what is yet to be made, repeat by repeat."""
        return [
            (arm, repeat)
            for repeat in range(repeats)
            for arm in arms
            if self.read(arm, repeat) is None
        ]

    def scores(self, arms: Sequence[Arm], repeats: int, name: str) -> Scores:
        """Return one score of all arms, NaN where a person has nothing to score."""
        table = {}
        for arm in arms:
            rows = [(self.read(arm, repeat) or {})["scores"][name] for repeat in range(repeats)]
            table[arm.name] = np.array(rows, float)  # None becomes NaN
        return Scores(table)


def write(path: Path, result: Result) -> None:
    """Keep a result: whole or not at all."""
    files.write(path, json.dumps(result) + "\n")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):  # not there, or torn
        return None
    return value if isinstance(value, dict) else None


def _digest(samples: Samples) -> str:
    parts = (samples.images, samples.masks, samples.people)
    digest = hashlib.sha256(
        repr([part.shape for part in parts] + [samples.grid.spacing[0]]).encode()
    )
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]
