"""An autoencoder with a KL term, and an optional patch discriminator (Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from medgen import CriticLoss, Strategy, StrategySettings, field, hookimpl, settings
from medgen.errors import Problem, RecipeError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from medgen.api.interfaces import LossFunction, Space, Turn
    from medgen.api.recipe import Recipe
    from medgen.api.values import Better, Mode
from medgen_builtins.strategies._discriminator import Discriminator

medgen_api = 1


@settings
class Vae(StrategySettings):
    """An autoencoder with normal latents; a loss such as `adversarial` adds a discriminator as the second turn."""

    discriminator: Discriminator = field(Discriminator(), help="settings of the discriminator, the second turn")

    gives = ("x0", "mean", "logvar", "logits")
    unconditional = True

    def check(self, recipe: Recipe) -> Iterator[str]:
        if recipe.names["space"] != "pixel":
            yield f"space.{recipe.names['space']}: strategy.vae makes latents of images. Use [space.pixel]."
        size, layers = recipe.data.image_size, self.discriminator.layers
        if layers and size // 2**layers < 4:
            yield (
                f"strategy.vae.discriminator.layers: got {layers}, expected fewer for images of {size} px. "
                "Leave it out, or use larger images."
            )
        network = recipe.network
        if network is not None and not network.latent_channels:
            yield (
                f"network.{recipe.names['network']}: is no autoencoder, as strategy.vae needs one. "
                "Use [network.autoencoder]."
            )

    def metrics(self, recipe: Recipe) -> dict[str, Better]:
        gains: dict[str, Better] = dict.fromkeys(("psnr/image", "psnr/head", "ssim", "dice"), "high")
        errors: dict[str, Better] = dict.fromkeys(
            ("loss/val/discriminator", "l1/lesion", "l1/outside", "latent/dead"), "low"
        )
        return gains | errors

    def build(self) -> VaeStrategy:
        return VaeStrategy(self)


class VaeStrategy(Strategy):
    """See `Strategy`. Generates nothing by itself."""

    image_size = 128
    """Side of an image, px; the core sets it before `turns`."""

    def __init__(self, options: Vae):
        self.options = options

    def turns(
        self, mode: Mode, space: Space, network: nn.Module, losses: Mapping[str, LossFunction], device: torch.device
    ) -> Sequence[Turn]:
        """Return the autoencoder's turn and, if there is a loss with a `critic`, the discriminator's."""
        from medgen_builtins.strategies import _vae_turns

        critics = {name: each for name, each in losses.items() if isinstance(each, CriticLoss)}
        if len(critics) > 1:
            raise RecipeError(
                Problem("losses", f"{' and '.join(critics)} each train a discriminator, there is one", "Remove one")
            )
        first = _vae_turns.AutoencoderTurn(mode, network, losses, self.options.discriminator.start_step)
        if not critics:
            return [first]
        options = self.options.discriminator
        discriminator = _vae_turns.discriminator(options, mode.channels, self.image_size).to(device)
        first.ask(discriminator)
        return [first, _vae_turns.DiscriminatorTurn(discriminator, next(iter(critics.values())), options)]

    def reconstruct(self, network: nn.Module, image: Tensor) -> Tensor:
        """Decode the means of the images' latents: `[batch, channel, *space]`, clamped, fp32."""
        import torch

        with torch.no_grad():
            back: Tensor = network.decode(network.encode(image)[0]).float().clamp(-1, 1)  # type: ignore[operator]
        return back


@hookimpl
def medgen_strategies() -> dict[str, type]:
    return {"vae": Vae}
