"""An autoencoder with a KL term, and an optional patch discriminator, as a strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medgen import (
    Autoencoder,
    CriticLoss,
    LossFunction,
    Mode,
    Problem,
    RecipeError,
    Space,
    Strategy,
    Turn,
)
from medgen_builtins.strategies._discriminator import Discriminator
from medgen_builtins.strategies._vae_turns import (
    AutoencoderTurn,
    DiscriminatorTurn,
    make_discriminator,
)


class VaeStrategy(Strategy):
    """See `Strategy`. Generates nothing by itself."""

    shape = (128, 128)

    def __init__(self, discriminator: Discriminator):
        self.options = discriminator

    def turns(
        self,
        mode: Mode,
        space: Space,
        network: nn.Module,
        losses: Mapping[str, LossFunction],
        device: torch.device,
    ) -> Sequence[Turn]:
        """Return the autoencoder's turn and, for a loss with a `critic`, the discriminator's."""
        critics = {name: each for name, each in losses.items() if isinstance(each, CriticLoss)}
        if len(critics) > 1:
            raise RecipeError(
                Problem(
                    "losses",
                    f"{' and '.join(critics)} each train a discriminator, there is one",
                    "Remove one",
                )
            )
        autoencoder = cast("Autoencoder", network)  # a recipe of another network is refused
        first = AutoencoderTurn(mode, autoencoder, losses, self.options.start_step)
        if not critics:
            return [first]
        options = self.options
        critic = make_discriminator(options, mode.channels, self.shape).to(device)
        first.ask(critic)
        return [first, DiscriminatorTurn(critic, next(iter(critics.values())), options)]

    def reconstruct(self, network: nn.Module, image: Tensor) -> Tensor:
        """Decode the means of the images' latents: `[batch, channel, *space]`, clamped, fp32."""
        with torch.no_grad():
            back: Tensor = network.decode(network.encode(image)[0]).float().clamp(-1, 1)  # type: ignore[operator]
        return back
