"""Features of any network in a file, such as an Inception or a network of one's own for brain MRI."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgen import Extractor, FeaturesSettings, between, field, hookimpl, one_of, settings
from medgen.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch

medgen_api = 1

WANTED = "Give a file of TorchScript, or of torch.export (.pt2)"


@settings
class TorchFile(FeaturesSettings):
    """A network in a file of TorchScript, or of `torch.export` (`.pt2`), that turns images into features.

    Whatever it gives of more than two axes is averaged over space. Such a file runs code: use only what you trust.
    """

    path: Path = field(Path(), help="the file")
    channels: int = field(0, help="that the network wants; 3: each is shown as grey. 0: as many as images have")
    side: int = field(0, help="px that images are scaled to; 0: as they are", check=between(0, 4096))
    range: str = field("-1..1", help="of the intensities that the network wants", check=one_of("-1..1", "0..1"))
    anatomy: bool = field(False, help="it knows heads, so that the verdict may come from it")

    def build(self, device: torch.device) -> Extractor:
        return _Extractor(self, _load(self.path), device)


class _Extractor(Extractor):
    def __init__(self, chosen: TorchFile, network: Callable[[Any], Any], device: torch.device):
        self._chosen, self._network, self._device = chosen, network, device
        self.hash = hashlib.sha256(chosen.path.read_bytes()).hexdigest()[:16]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        import numpy as np
        import torch

        from medgen.evaluation.network import parts

        with torch.no_grad():
            found = [self._features(part) for part in parts(images, self._device)]
        return np.asarray(torch.cat(found).cpu().numpy(), np.float32)

    def _features(self, part: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import interpolate

        chosen = self._chosen
        if chosen.side:
            part = interpolate(part, (chosen.side, chosen.side), mode="bilinear", antialias=True)
        part = part if chosen.range == "-1..1" else (part + 1) / 2
        views, count = part, 1
        if chosen.channels and chosen.channels != part.shape[1]:
            views, count = part.flatten(0, 1)[:, None].expand(-1, chosen.channels, -1, -1), part.shape[1]
        try:
            found = self._network(views)
            found = found.flatten(2).mean(2) if found.ndim > 2 else found
            out: torch.Tensor = found.reshape(len(part), count * found.shape[1]).float()
            return out
        except (RuntimeError, AttributeError, TypeError, IndexError, AssertionError) as error:
            what = f"does not turn images {list(views.shape)} into features ({_said(error)})"
            advice = "Set features.torch_file.channels and side"
            raise RecipeError(Problem("features.torch_file.path", f"{chosen.path} {what}", advice)) from error


def _load(path: Path) -> Callable[[Any], Any]:
    """The network in a file. Raises RecipeError if there is none."""
    import torch

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


@hookimpl
def medgen_features() -> dict[str, type]:
    return {"torch_file": TorchFile}
