"""Base classes of what a plugin's `build` gives. Tensors are `[batch, channel, *space]`.

A member without a default must be written. Importing this module imports no torch.
"""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from medgen.api.contract import Contract
from medgen.api.values import (
    AutoencoderPrediction,
    Batch,
    Clean,
    DrawNoise,
    Draws,
    Mode,
    Noisy,
    Predict,
    Prediction,
    TurnOutput,
)

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn


class Space(Contract):
    """Where samples are diffused. `decode(encode(prepare(x)))` is x, up to what the space loses."""

    channels: int
    """Channels of an encoded sample."""
    condition_channels: int
    """Channels of an encoded condition."""
    key: str | None = None
    """Names what `prepare` does, such as a hash of an autoencoder, if it is costly.

    `prepare` then runs once, before training, its results are kept in the cache under this key, and
    `encode` draws a new sample of them in each step, with `draws.latent`.
    """
    moments: tuple[Tensor, Tensor] | None = None
    """Mean and standard deviation of the samples to train on, of each channel, `[channel]`, or of
    each place of it, `[channel, *space]`, fp32, on the device; None if they are not measured.
    """

    def moments_given(self, given: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return `moments` of samples of which something is given: the mean may be one for each,
        `[batch, channel, *space]`.

        given: what `condition` gave, first, and after it what else the network is given.
        """
        return self.moments

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return `[channel, *space]` of an encoded sample whose image has the spatial size `size`."""

    def prepare(self, image: Tensor) -> Tensor:
        """Return what is stored for an image: once per slice, cacheable, drawing nothing."""
        return image

    def encode(self, stored: Tensor, draws: Draws) -> Tensor:
        """Turn stored slices into the samples that are diffused."""
        return stored

    def condition(self, condition: Tensor) -> Tensor:
        """Bring condition channels to the grid of the encoded samples; none stay none."""
        return condition

    def decode(self, z: Tensor) -> Tensor:
        """Turn samples back into images, not clamped."""
        return z

    def textured(self, image: Tensor, z: Tensor, draw: DrawNoise) -> Tensor:
        """Add to decoded images what `z` holds the strength of alone, such as noise.

        draw: gives normal noise of the shape of `z`, anew at each call.
        """
        return image

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Measure the slices to train on, as they are stored, in parts, on the device; called once,
        in a new run.

        What is found, such as a scale, belongs in `state_dict`; a resumed run and `generate` take
        it from there.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep of the space."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""


class Autoencoder(Protocol):
    """A network that strategy `vae` trains and space `latent` uses: an `nn.Module` with these.

    Its settings have `latent_channels` too. It may have `textured`, see `Space`; the latents are as
    its `encode` gives them.
    """

    latent_channels: int
    factor: int
    """Pixels of the image per latent pixel and side."""

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, each `[batch, latent_channels, *space / factor]`."""

    def decode(self, z: Tensor) -> Tensor:
        """Turn latents into images `[batch, channel, *space]`, not clamped."""


class Turn(Contract):
    """One optimizer's part of a training step; also a module: `class Mine(nn.Module, Turn)`.

    It owns exactly the parameters that its optimizer steps. Parameters and buffers of it that are
    not `run.network`'s are kept in checkpoints.
    """

    name: str
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's."""
    rate: float = 1.0
    """Multiple of the learning rate."""
    step: int = 0
    """Optimizer steps done when `draw` is called; the core sets it, and only `draw` may read it."""

    forward: Callable[..., TurnOutput]
    """`forward(batch, draws, before=None)`: the losses of one (micro) batch.

    draws: rows of what `draw` gave. before: the detached result of the turn before.
    """

    def draw(self, generator: torch.Generator, batch: Batch) -> NamedTuple:
        """Return the random numbers of one step for the whole batch."""

    def validation_metrics(
        self, output: TurnOutput, total: Tensor, truth: Tensor, lesion: Tensor | None
    ) -> list[tuple[str, Tensor]]:
        """Return values by name, of which the mean over the validation set is shown.

        total: the weighted loss of each sample, `[batch]`. truth: the images. lesion: `[batch or 1,
        *space]`, true in lesions, where masks are known.
        """
        return []

    def summarise(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the means of all turns, and what follows from them."""
        return dict(metrics)

    def warning(self, step: int, means: Mapping[str, float]) -> str | None:
        """Return a sentence to warn with, if the means since the last call ask for it."""
        return None

    if TYPE_CHECKING:  # nn.Module has them

        def __call__(
            self, batch: Batch, draws: NamedTuple, before: TurnOutput | None = None
        ) -> TurnOutput: ...
        def parameters(self, recurse: bool = True) -> Iterable[nn.Parameter]: ...


DiffusionLoss = Callable[[Prediction, Noisy], "Tensor"]
"""`loss(prediction, noisy)`: `[batch]`, fp32."""


AutoencoderLoss = Callable[[AutoencoderPrediction, Clean], "Tensor"]
"""`loss(prediction, clean)`: `[batch]`, fp32."""


LossFunction = DiffusionLoss | AutoencoderLoss
"""What a loss's `build` gives. Losses that read what the strategy does not give are refused."""


class CriticLoss(Contract):
    """A loss that a discriminator is trained for."""

    def __call__(self, prediction: AutoencoderPrediction, noisy: Clean) -> Tensor:
        """Return the generator's loss, `[batch]`, fp32."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the discriminator's loss for its logits of real and fake images, `[batch]`, fp32."""


class Strategy(Contract):
    """How a model is trained and sampled."""

    shape: tuple[int, ...] = ()
    """Points of an image along each spatial axis; the core sets it before `turns` is called."""
    space: Space
    """Where samples are diffused; the core sets it before `turns` is called."""
    network_outputs: int = 1
    """Channels that the network puts out for each channel of a sample."""

    def turns(
        self,
        mode: Mode,
        space: Space,
        network: nn.Module,
        losses: Mapping[str, LossFunction],
        device: torch.device,
    ) -> Sequence[Turn]:
        """Return the turns of one training step, in order."""

    def reconstruct(self, network: nn.Module, image: Tensor) -> Tensor:
        """Return images `[batch, channel, *space]` as the network gives them back, clamped, fp32.

        A strategy that is no `DiffusionStrategy` shows these as its previews.
        """


class DiffusionStrategy(Strategy):
    """What a diffusion strategy writes; its one turn is `medgen.training.objective.Objective`."""

    sampling_steps: int
    """Steps that it samples with if no other number is given."""
    guidance: float = 0.0
    """How far beyond the prediction for an empty mask it samples, if no other number is given."""

    def draw(self, generator: torch.Generator, batch_size: int, shape: Sequence[int]) -> Draws:
        """Return times and noise for `batch_size` samples of `shape`, on the generator's device."""

    def corrupt(self, x0: Tensor, draws: Draws) -> Noisy:
        """Apply the forward process."""

    def network_input(self, xt: Tensor, t: Tensor, given: Tensor | None = None) -> Tensor:
        """Return what the network sees of xt at t `[batch]` in 0..1000.

        given: what it sees besides, `[batch, channel, *space]`.
        """
        return xt

    def read(
        self, output: Tensor, xt: Tensor, t: Tensor, given: Tensor | None = None
    ) -> Prediction:
        """Read the output for xt at t `[batch]` in 0..1000 as the target and as x0, both fp32.

        given: what the network saw besides, `[batch, channel, *space]`.
        """

    def sample(self, predict: Predict, noise: Tensor, steps: int, draw: DrawNoise) -> Tensor:
        """Turn noise `[batch, channel, *space]` into x0 in `steps` sampling steps."""


class Extractor(Contract):
    """Turns images into the features by which sets of them are compared."""

    hash: str
    """Of what decides the features, such as weights; another hash is another measure."""

    def fit(self, images: np.ndarray, people: np.ndarray, position: np.ndarray, seed: int) -> None:
        """Learn from real images only; called before each use, with persons that are not compared.

        images: float32 `[n, channel, height, width]` in [-1, 1]. people: int64 `[n]`. position:
        float32 `[n]`, 0 bottom to 1 top of the head, NaN if unknown. Same seed, same features.
        """

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return float32 `[n, d]` for images float32 `[n, channel, height, width]` in [-1, 1]."""


class Callback(Contract):
    """An object with `@hookimpl` methods (see `medgen.api.hooks`), and these two if it has state."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
