"""A variational autoencoder, with or without a discriminator (Kingma and Welling 2014; Rombach et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from medgen import between, field, ge, gt, hookimpl, settings
from medgen.errors import RecipeError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from medgen.api.interfaces import LossFunction, Mode, Space, Turn
    from medgen.api.recipe import Recipe

medgen_api = 1


@settings
class Discriminator:
    """Looks at patches (Isola et al. 2017). It takes part only if the recipe has a loss such as `adversarial`."""

    channels: int = field(64, help="width of its first layer; each further layer doubles it", check=ge(1))
    layers: int | None = field(
        None, help="layers between the first and the last; unless given, as patches of half the image need", check=ge(1)
    )
    norm: Literal["group", "instance"] = field("group", help="either works for batches of any size")
    learning_rate: float = field(1.0, help="its rate, as a multiple of training.learning_rate", check=gt(0))
    start_step: int = field(1000, help="optimizer steps before it joins", check=ge(0))
    betas: tuple[float, float] = field((0.5, 0.9), help="of its AdamW", check=between(0, 1))

    def depth(self, image_size: int) -> int:
        """Layers whose patches are about half an image: 34 px of 64, 70 px of 128, 142 px of 256."""
        return self.layers or min(max(round(math.log2(image_size / 16)), 1), 4)


@settings
class Vae:
    """An autoencoder with normal latents; with a loss such as `adversarial`, a discriminator is its second turn."""

    discriminator: Discriminator = field(Discriminator(), help="the second turn's")

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
        if network is not None and not hasattr(network, "latent_channels"):
            yield (
                f"network.{recipe.names['network']}: is no autoencoder, as strategy.vae needs one. "
                "Use [network.autoencoder]."
            )

    def build(self) -> VaeStrategy:
        return VaeStrategy(self)


class VaeStrategy:
    """See `kinds.Strategy`. It generates nothing by itself."""

    image_size = 128
    """That of the recipe; the core sets it before `turns`."""

    def __init__(self, options: Vae):
        self.options = options

    def turns(
        self, mode: Mode, space: Space, network: nn.Module, losses: Mapping[str, LossFunction], device: torch.device
    ) -> Sequence[Turn]:
        """The autoencoder's; and, if there is a loss with a `critic`, the discriminator's."""
        from medgen_builtins.strategies import _vae_turns

        critics = {name: each for name, each in losses.items() if hasattr(each, "critic")}
        if len(critics) > 1:
            raise RecipeError(f"losses: {' and '.join(critics)} each train a discriminator, there is one. Remove one.")
        first = _vae_turns.AutoencoderTurn(mode, network, losses, self.options.discriminator.start_step)
        if not critics:
            return [first]
        options = self.options.discriminator
        discriminator = _vae_turns.discriminator(options, mode.channels, self.image_size).to(device)
        first.ask(discriminator)
        return [first, _vae_turns.DiscriminatorTurn(discriminator, next(iter(critics.values())), options)]

    def reconstruct(self, network: nn.Module, image: Tensor) -> Tensor:
        """Images `[batch, channel, *space]` as they come back of the mean of their latents, clamped, fp32."""
        import torch

        with torch.no_grad():
            back: Tensor = network.decode(network.encode(image)[0]).float().clamp(-1, 1)  # type: ignore[operator]
        return back


@hookimpl
def medgen_strategies() -> dict[str, type]:
    return {"vae": Vae}
