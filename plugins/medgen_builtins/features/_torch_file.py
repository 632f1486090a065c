"""Run the network in a file as an extractor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import interpolate

from medgen import Extractor, Problem, RecipeError
from medgen.evaluation.network import parts

WANTED = "Give a file of TorchScript, or of torch.export (.pt2)"


class Wanted(NamedTuple):
    """A file, and the images that its network wants; see the settings `TorchFile`."""

    path: Path
    channels: int
    side: int
    range: str


class FileExtractor(Extractor):
    def __init__(self, wanted: Wanted, device: torch.device):
        self._wanted, self._network, self._device = wanted, _load(wanted.path), device
        self.hash = hashlib.sha256(wanted.path.read_bytes()).hexdigest()[:16]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found = [self._features(part) for part in parts(images, self._device)]
        return np.asarray(torch.cat(found).cpu().numpy(), np.float32)

    def _features(self, part: torch.Tensor) -> torch.Tensor:
        wanted = self._wanted
        if wanted.side:
            part = interpolate(part, (wanted.side, wanted.side), mode="bilinear", antialias=True)
        part = part if wanted.range == "-1..1" else (part + 1) / 2
        views, count = part, 1
        if wanted.channels and wanted.channels != part.shape[1]:
            views, count = (
                part.flatten(0, 1)[:, None].expand(-1, wanted.channels, -1, -1),
                part.shape[1],
            )
        try:
            found = self._network(views)
            found = found.flatten(2).mean(2) if found.ndim > 2 else found
            out: torch.Tensor = found.reshape(len(part), count * found.shape[1]).float()
            return out
        except (RuntimeError, AttributeError, TypeError, IndexError, AssertionError) as error:
            what = f"does not turn images {list(views.shape)} into features ({_said(error)})"
            advice = "Set features.torch_file.channels and side"
            raise RecipeError(
                Problem("features.torch_file.path", f"{wanted.path} {what}", advice)
            ) from error


def _load(path: Path) -> Callable[[Any], Any]:
    """Return the network in a file. Raises RecipeError if there is none."""
    if not path.is_file():
        raise RecipeError(Problem("features.torch_file.path", f"{path} is no file", WANTED))
    try:
        if path.suffix == ".pt2":
            exported: Callable[[Any], Any] = torch.export.load(path).module()
            return exported
        scripted: Callable[[Any], Any] = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
        return scripted
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        what = f"cannot be read ({_said(error)})"
        raise RecipeError(Problem("features.torch_file.path", f"{path} {what}", WANTED)) from None


def _said(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")[:200]
