"""Images that an image model is given besides masks, such as that of tissues: from the patients of a
folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from medgen import seeds
from medgen.api.tables import DataSettings, image_size
from medgen.data.scans import layouts
from medgen.data.store import slice_numbers
from medgen.data.store.store import open_store
from medgen.errors import DataError, Problem
from medgen.evaluation.lesion_outside_head import OUTSIDE, worst_outside
from medgen.generation.model import Model
from medgen.generation.numbers import Row
from medgen.system import console

Array = np.ndarray[Any, np.dtype[Any]]
TRIES = 16
"""Patients among whom one is looked for whose anatomy a lesion lies in."""
ADVICE = "`medgen data tissue` makes a folder of patients with tissue.nii.gz of any scans"


class Anatomy:
    """Slices or volumes of a folder's patients, on the grid of a model's images, one for each pair.

    They are read with the data settings of the image model. A slice is taken at the pair's position in
    the head, if that is known. Raises DataError.
    """

    def __init__(self, folder: Path, model: Model, seed: int):
        self.names, self.condition, self.seed = model.scans_given, model.parts.mode.condition, seed
        data = _settings(folder, model)
        try:
            with console.progress("anatomy", unit="steps, two per patient") as bar:
                self.store = open_store(data, self.names, frozenset(), bar.update)
        except DataError as error:
            raise DataError(*(each._replace(fix=ADVICE) for each in error.problems)) from error
        rows = self.store.select("train")
        if not len(rows):
            what = f"has no {data.noun[:-1]} with {', '.join(self.names)}"
            raise DataError(Problem(folder, what, ADVICE))
        self._patients = [each.id for each in layouts.find(data, self.names)]
        patients = self.store.patient[rows]
        self._rows = [rows[patients == each] for each in np.unique(patients)]
        slices = len(self.store.grid.shape) == 2
        self._position = slice_numbers.measured(self.store, "position") if slices else None

    def drawn(
        self, index: int, numbers: Row, attempt: int, lesion: Array | None = None
    ) -> tuple[int, bool]:
        """Draw a row for a pair: of any patient, the slice at a position, or any where none is known.
        Return with it whether the lesion lies in it.

        numbers: of the pair. attempt: each has another anatomy. lesion: bool `[*space]`; of up to
        `TRIES` patients the first whose anatomy it lies in, or else that which it lies in most.
        """
        first, count = self._number("patient", index, attempt), len(self._rows)
        rows = [
            self._row(self._rows[(first + more) % count], index, numbers, attempt)
            for more in range(min(TRIES, count))
        ]
        return (rows[0], True) if lesion is None else self._holding(rows, lesion)

    def _holding(self, rows: Sequence[int], lesion: Array) -> tuple[int, bool]:
        """Return the first row that a lesion lies in, or else that which it lies in most."""
        beyond: list[float] = []
        for row in rows:
            beyond.append(worst_outside(self.store.read(np.array([row]), self.names)[0], lesion))
            if beyond[-1] <= OUTSIDE:
                return row, True
        return rows[int(np.argmin(beyond))], False

    def _row(self, mine: Array, index: int, numbers: Row, attempt: int) -> int:
        """Draw one of a patient's rows."""
        if self._position is None or "position" not in numbers:
            return int(mine[self._number("slice", index, attempt) % len(mine)])
        return int(mine[np.abs(self._position[mine] - numbers["position"]).argmin()])

    def joined(self, rows: Sequence[int], masks: Tensor, names: Sequence[str]) -> Tensor:
        """Return everything that the model is given, `[batch, channel, *space]`, as its mode orders it.

        masks: `[batch, mask, *space]`, of `names`.
        """
        images = torch.from_numpy(self.store.read(np.array(rows), self.names)).float()
        channels = {name: masks[:, place] for place, name in enumerate(names)}
        channels |= {name: images[:, place] for place, name in enumerate(self.names)}
        return torch.stack([channels[name] for name in self.condition], dim=1)

    def named(self, row: int) -> dict[str, Any]:
        """Return what the manifest says of a row: whose it is, and of slices which."""
        whose = {"patient": self._patients[self.store.patient[row]]}
        return (
            whose if self._position is None else {**whose, "slice": int(self.store.position[row])}
        )

    def row(self, named: Mapping[str, Any]) -> int:
        """Return the row that the manifest names."""
        number = self._patients.index(named["patient"])
        mine = next(rows for rows in self._rows if self.store.patient[rows[0]] == number)
        if self._position is not None:
            mine = mine[self.store.position[mine] == named["slice"]]
        return int(mine[0])

    def identity(self) -> Mapping[str, Any]:
        """Return a hash of the images' content."""
        return {"anatomy": self.store.fingerprint}

    def _number(self, what: str, index: int, attempt: int) -> int:
        return seeds.derive(self.seed, f"anatomy {what}", index, attempt)


def _settings(folder: Path, model: Model) -> DataSettings:
    """Return settings to read whole slices or volumes of every patient, on the grid of a model."""
    given, grid = model.recipe.data, model.grid
    size = grid.shape[:1] if given.axes == 2 else grid.shape
    return attrs.evolve(
        given,
        root=folder,
        val_fraction=0.0,
        exclude=[],
        allow_patient_overlap=True,
        lesion_only=False,
        crop="none",
        patch_size=None,
        spacing=grid.spacing[0],
        image_size=image_size(size),
    )
