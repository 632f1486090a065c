"""An autoencoder with a KL term, and an optional patch discriminator (Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator

from medgen import Problem, Recipe, Strategy, StrategySettings, field, hookimpl, settings
from medgen.api.tables import sides
from medgen.api.values import Better
from medgen_builtins.strategies._discriminator import Discriminator

medgen_api = 1


@settings
class Vae(StrategySettings):
    """An autoencoder with normal latents; a loss such as `adversarial` adds a discriminator as the
    second turn.
    """

    discriminator: Discriminator = field(
        Discriminator(), help="settings of the discriminator, the second turn"
    )

    gives = ("x0", "mean", "logvar", "logits")
    unconditional = True

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        if recipe.names["space"] != "pixel":
            where = f"space.{recipe.names['space']}"
            yield Problem(where, "strategy.vae makes latents of images", "Use [space.pixel]")
        size, layers = min(sides(recipe.data.trained_size)), self.discriminator.layers
        if layers and size // 2**layers < 4:
            what = f"got {layers}, expected fewer for images of {size} px"
            yield Problem(
                "strategy.vae.discriminator.layers", what, "Leave it out, or use larger images"
            )
        network = recipe.network
        if network is not None and not network.latent_channels:
            what = "is no autoencoder, as strategy.vae needs one"
            yield Problem(f"network.{recipe.names['network']}", what, "Use [network.autoencoder]")

    def metrics(self, recipe: Recipe) -> dict[str, Better]:
        gains: dict[str, Better] = dict.fromkeys(
            ("psnr/image", "psnr/head", "ssim", "dice"), "high"
        )
        errors: dict[str, Better] = dict.fromkeys(
            ("loss/val/discriminator", "l1/lesion", "l1/outside", "latent/dead"), "low"
        )
        return gains | errors

    def build(self) -> Strategy:
        from medgen_builtins.strategies._vae import VaeStrategy

        return VaeStrategy(self.discriminator)


@hookimpl
def medgen_strategies() -> dict[str, type]:
    return {"vae": Vae}
