"""Load an autoencoder from a checkpoint for the latent space, whose state contains all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from medgen.api.recipe import Recipe
from medgen.config.recipe import from_toml
from medgen.errors import CheckpointError, Problem, RecipeError
from medgen.run import checkpoint, named_weights, shared_weights
from medgen.run.shared_weights import SharedWeights
from medgen.run.weights import load_into
from medgen.training.tiles import Tiles, in_tiles

if TYPE_CHECKING:
    from medgen.api.interfaces import Autoencoder
    from medgen.api.values import DrawNoise, Mode

NEWEST = ("final_model.pt", "best.pt", "latest.pt")
"""Checkpoints of a run's folder by preference; the first that exists is used."""
CONTRACT = ("encode", "decode", "latent_channels", "factor")
"""What a network needs to be an autoencoder, see `Autoencoder`."""
LEAST_SCALE = 1e-6
"""A channel that is the same everywhere has no scale."""


class Codec:
    """Images `[batch, channel, *space]` to means and log-variances of latents, and normalised
    latents to images.

    An autoencoder of one channel encodes each channel by itself. digest: sha256 of the recipe and
    the weights. shift, scale: `[channel]`, of the latents over the whole training set. tiles: in
    which images of several are encoded and decoded; None: as a whole.
    """

    tiles: Tiles | None = None
    trained: tuple[int, ...] = ()
    """Sides of the crops that the autoencoder was trained on, px; none: whole images."""

    def __init__(self, text: str, module: nn.Module, count: int, width: int, device: torch.device):
        """text: the autoencoder's recipe. count: channels of an image. width: channels that the
        module takes.
        """
        self.text = text
        self.digest = _digest(text, module.state_dict())
        self.module = module.to(device).eval().requires_grad_(False)
        self.autoencoder = cast("Autoencoder", module)
        self.groups = count // width
        self.channels = self.groups * self.autoencoder.latent_channels
        self.shift, self.scale = (
            torch.zeros(self.channels, device=device),
            torch.ones(self.channels, device=device),
        )

    def moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log-variances, each `[batch, channels, *space / factor]`."""
        mean, logvar = self._encode(self._split(image)).chunk(2, dim=1)
        return self._join(mean, len(image)), self._join(logvar, len(image))

    def normalise(self, z: Tensor) -> Tensor:
        """Normalise latents."""
        return (z - self._spread(self.shift, z)) / self._spread(self.scale, z)

    def decode(self, z: Tensor) -> Tensor:
        """Decode normalised latents to images, not clamped."""
        return self._join(self._decode(self._latents(z)), len(z))

    def textured(self, image: Tensor, z: Tensor, draw: DrawNoise) -> Tensor:
        """Add texture to decoded images, if the autoencoder has any: see `DctAutoencoder`."""
        add = getattr(self.module, "textured", None)
        if add is None:
            return image
        made = add(self._split(image), self._latents(z), lambda: self._split(draw()))
        return self._join(made, len(z))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `restore` needs."""
        scaling = {"shift": self.shift, "scale": self.scale}
        return {
            "recipe": self.text,
            "digest": self.digest,
            "weights": self.module.state_dict(),
            **scaling,
        }

    def _encode(self, image: Tensor) -> Tensor:
        """Return means and log-variances as channels."""

        def moments(part: Tensor) -> Tensor:
            return torch.cat(self.autoencoder.encode(part), dim=1)

        factor = self.autoencoder.factor
        if self.tiles is None or not self.tiles.divide(
            [side // factor for side in image.shape[2:]]
        ):
            return moments(image)
        return in_tiles(moments, image, self.tiles, before=factor, after=1)

    def _decode(self, z: Tensor) -> Tensor:
        if self.tiles is None or not self.tiles.divide(z.shape[2:]):
            return self.autoencoder.decode(z)
        factor = self.autoencoder.factor
        return in_tiles(self.autoencoder.decode, z, self.tiles, before=1, after=factor)

    def _latents(self, z: Tensor) -> Tensor:
        """Return what the autoencoder takes, of normalised latents."""
        return self._split(z * self._spread(self.scale, z) + self._spread(self.shift, z))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(len(x) * self.groups, x.shape[1] // self.groups, *x.shape[2:])

    def _join(self, x: Tensor, batch: int) -> Tensor:
        return x.reshape(batch, -1, *x.shape[2:])

    def _spread(self, values: Tensor, z: Tensor) -> Tensor:
        return values.view(-1, *(1,) * (z.ndim - 2))


class Moments:
    """Mean and variance per channel of sampled latents, accumulated in parts."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Tensor | None = None

    def add(self, mean: Tensor, logvar: Tensor) -> None:
        """Add means and log-variances, each `[batch, channel, *space]`."""
        mean, noise = (
            mean.double().transpose(0, 1).flatten(1),
            logvar.double().exp().transpose(0, 1).flatten(1),
        )
        sums = torch.stack([mean.sum(1), mean.square().sum(1), noise.sum(1)])
        self.sums = sums if self.sums is None else self.sums + sums
        self.count += mean.shape[1]

    def read(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return per channel: the mean, the variance of the means, and the mean variance of the
        noise.
        """
        assert self.sums is not None
        mean, square, noise = self.sums / self.count
        return mean, (square - mean.square()).clamp_min(0), noise

    def shift_and_scale(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of a sample; its variance is that of the means plus
        that of the noise.
        """
        mean, signal, noise = self.read()
        return mean.float(), (signal + noise).sqrt().clamp_min(LEAST_SCALE).float()


def read(
    path: Path,
    key: str,
    names: Sequence[str],
    count: int,
    factor: int,
    axes: int,
    device: torch.device,
) -> Codec:
    """Load the autoencoder from a file or a run's folder, with averaged weights if there are any.

    key: the setting that names it. names, count: the channels that it is for. axes: spatial ones of
    a sample. Raises CheckpointError or RecipeError.
    """
    if path == Path():
        raise RecipeError(
            Problem(key, 'got "", expected a checkpoint of an autoencoder', "Give one")
        )
    found = _find(named_weights.find(path, "autoencoder", key), key)
    given = _weights(found)
    fitting = None if given.any_image else names
    codec = _build(given.recipe, given.weights, found, fitting, count, axes, device)
    if codec.autoencoder.factor != factor:
        fits = codec.autoencoder.factor
        raise RecipeError(
            Problem(
                "space.latent.factor",
                f"got {factor}, expected {fits}, that of {found}",
                f"Give space.latent.factor={fits}",
            )
        )
    return codec


def _find(path: Path, key: str) -> Path:
    """Return the file that `key` means: the best of a run's folder, or the path."""
    found = next((path / name for name in NEWEST if (path / name).is_file()), path)
    if found.is_dir():
        fix = f"Give {key} a checkpoint of an autoencoder"
        raise CheckpointError(Problem(found, f"has none of {', '.join(NEWEST)}", fix))
    return found


def _weights(path: Path) -> SharedWeights:
    if path.suffix == shared_weights.SUFFIX:
        return shared_weights.read(path)
    state = checkpoint.load(path)
    return SharedWeights(state["recipe"], state["averaged"] or state["network"], any_image=False)


def restore(
    state: Mapping[str, Any], count: int, factor: int, axes: int, device: torch.device
) -> Codec:
    """Rebuild a codec from `Codec.state_dict`. count, axes: as of `read`."""
    source = Path("autoencoder")
    codec = _build(state["recipe"], state["weights"], source, None, count, axes, device)
    if codec.digest != state["digest"] or codec.autoencoder.factor != factor:
        raise ValueError("its autoencoder is not the one that it was trained with")
    for name in ("shift", "scale"):
        getattr(codec, name).copy_(state[name])
    return codec


def _build(
    text: str,
    weights: Mapping[str, Any],
    source: Path,
    names: Sequence[str] | None,
    count: int,
    axes: int,
    device: torch.device,
) -> Codec:
    """names: those that the autoencoder must know; None: it knows these, or is for any."""
    recipe = _recipe(text, source)
    mode = recipe.mode.build()
    if names is not None and not _fits(mode, names):
        what = f"an autoencoder of {', '.join(mode.images)}, but the recipe's mode has {', '.join(names)}"
        raise CheckpointError(Problem(source, what, "Use one of these, or one that pools them"))
    if recipe.data.axes != axes:
        what = f"an autoencoder of {recipe.data.noun}, but data.dimensions is {axes}"
        raise CheckpointError(Problem(source, what, "Use one that was trained with the same"))
    module = recipe.network.build(mode.channels, mode.channels, recipe.data.axes)
    if not all(hasattr(module, name) for name in CONTRACT):
        what = f"network.{recipe.names['network']} is no autoencoder"
        raise CheckpointError(
            Problem(source, what, "Use a checkpoint of one, such as strategy.vae trains")
        )
    load_into(module, weights, source)
    codec = Codec(text, module, count, mode.channels, device)
    codec.trained = recipe.data.trained_shape if recipe.data.patch_size else ()
    return codec


def _recipe(text: str, source: Path) -> Recipe:
    try:
        return from_toml(text)
    except RecipeError as error:
        raise CheckpointError(
            *(each._replace(where=f"{source}: {each.where}") for each in error.problems)
        ) from error


def _fits(mode: Mode, names: Sequence[str]) -> bool:
    """True for the same channels in the same order, or an autoencoder of single channels."""
    return tuple(names) == mode.images or (mode.channels == 1 and set(names) <= set(mode.images))


def _digest(text: str, weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, value in weights.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(
            value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
