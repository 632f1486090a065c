"""Features of any network in a file, such as an Inception or a network of one's own for brain MRI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medgen import Extractor, FeaturesSettings, between, field, hookimpl, one_of, settings

if TYPE_CHECKING:
    import torch

medgen_api = 1


@settings
class TorchFile(FeaturesSettings):
    """A network in a file, TorchScript or `torch.export` (`.pt2`), that turns images into features.

    Whatever it gives of more than two axes is averaged over space. Such a file runs code: use only
    what you trust.
    """

    path: Path = field(Path(), help="the file")
    channels: int = field(
        0, help="that the network wants; 3: each is shown as grey. 0: as many as images have"
    )
    side: int = field(
        0, help="px that images are scaled to; 0: as they are", check=between(0, 4096)
    )
    range: str = field(
        "-1..1", help="of the intensities that the network wants", check=one_of("-1..1", "0..1")
    )
    anatomy: bool = field(False, help="it knows heads, so that the verdict may come from it")

    def build(self, device: torch.device) -> Extractor:
        from medgen_builtins.features._torch_file import FileExtractor, Wanted

        return FileExtractor(Wanted(self.path, self.channels, self.side, self.range), device)


@hookimpl
def medgen_features() -> dict[str, type]:
    return {"torch_file": TorchFile}
