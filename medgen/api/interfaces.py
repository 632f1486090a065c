"""What each kind of plugin gives to the core. Tensors are `[batch, channel, *space]`.

Importing this module imports no torch, so that recipes are checked and plugins listed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from medgen.api.recipe import Recipe

SINGLE = ("mode", "strategy", "space", "network")
"""Kinds of which a recipe has exactly one; a later one replaces an earlier one."""
SEVERAL = ("losses", "callbacks")
"""Kinds of which a recipe has any number; they merge."""
KINDS = SINGLE + SEVERAL

TIME_SCALE = 1000.0
"""Networks, draws and samplers speak of times on a scale of 0 (clean) to 1000 (noise)."""


class Mode(NamedTuple):
    """What is generated, given what: names of channels, as `[data]` names them."""

    images: tuple[str, ...]
    condition: tuple[str, ...] = ()
    pooled: bool = False
    """Each image is a sample of its own with one channel, instead of all being channels of one sample."""

    @property
    def channels(self) -> int:
        """Channels of one generated sample."""
        return 1 if self.pooled else len(self.images)

    @property
    def names(self) -> tuple[str, ...]:
        """Every channel that is read from the data."""
        return self.images + self.condition


class Batch(NamedTuple):
    """A batch as it leaves the data: everything in [-1, 1], masks -1 or +1.

    `image` is `[batch, channel, *space]`, or what the space's `prepare` made of it; `condition` may have no channels.
    """

    image: Tensor
    condition: Tensor


class Draws(NamedTuple):
    """The random numbers of one step, drawn outside whatever is compiled.

    t: `[batch]`, 0 (clean) to 1000 (noise), as the network sees it. noise: `[batch, *shape]`, standard normal.
    latent: the same, for spaces that draw a new sample of what is stored in each step; empty for all others.
    """

    t: Tensor
    noise: Tensor
    latent: Any = ()


class Noisy(NamedTuple):
    """A corrupted sample and what the loss needs to know of it. All but `t` and `x` may be read by losses, in fp32.

    x: `[batch, channel, *space]`, what the network sees. t: `[batch]` in 0..1000, as the network sees it.
    target: what is regressed on. x0: the clean sample. snr: `[batch]`, alpha^2/sigma^2.
    gain: `[batch]`, (dx0/dtarget)^2.
    """

    x: Tensor
    t: Tensor
    target: Tensor
    x0: Tensor
    snr: Tensor
    gain: Tensor


class Prediction(NamedTuple):
    """A network's output, read: `target` in the units of `Noisy.target`, and the clean sample it implies, in fp32."""

    target: Tensor
    x0: Tensor


class AutoencoderPrediction(NamedTuple):
    """What an autoencoder made of images, fp32. Losses read it beside an `Clean`.

    x0: the reconstruction, about in [-1, 1]; of a mask, sigmoid(2 x0) is the probability of +1.
    mean, logvar: `[batch, latent channel, *latent space]`. logits: what a discriminator says of x0, no values without.
    """

    x0: Tensor
    mean: Tensor
    logvar: Tensor
    logits: Tensor


class Clean(NamedTuple):
    """What an autoencoder is to give back; what its losses get instead of a `Noisy`."""

    x0: Tensor


class TurnOutput(NamedTuple):
    """What one pass of a turn gives. losses: by name, each `[batch]`, fp32, unweighted."""

    losses: dict[str, Tensor]
    prediction: Any
    noisy: Any


class Space(Protocol):
    """Where it is diffused. `decode(encode(prepare(x)))` is x, up to what the space loses."""

    channels: int
    condition_channels: int

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        """`[channel, *space]` of an encoded sample whose image has the spatial size `size`."""

    def prepare(self, image: Tensor) -> Tensor:
        """What is stored for an image: once per slice, cacheable, drawing nothing."""

    def encode(self, stored: Tensor, draws: Draws) -> Tensor:
        """Stored slices to the samples that are diffused."""

    def condition(self, condition: Tensor) -> Tensor:
        """Condition channels on the grid of the encoded samples; zero channels stay zero channels."""

    def decode(self, z: Tensor) -> Tensor:
        """Samples back to images, not clamped."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep of the space."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""


class StoringSpace(Space, Protocol):
    """A space whose `prepare` is costly: it runs once, before training, and what it gives is kept in the cache.

    key: names what `prepare` does, such as a hash of an autoencoder; part of the cache's key. `encode` draws a new
    sample of what is stored in each step, with `draws.latent`.
    """

    key: str

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Called once, in a new run, with the slices to train on as they are stored, in parts, on the device.

        What is found, such as a scale, belongs in `state_dict`; a resumed run and `generate` take it from there.
        """


class Autoencoder(Protocol):
    """A network that strategy `vae` trains and space `latent` uses: an `nn.Module` with these.

    Its settings have `latent_channels` too.
    """

    latent_channels: int
    factor: int
    """Pixels of the image per latent pixel and side."""

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each `[batch, latent_channels, *space / factor]`."""

    def decode(self, z: Tensor) -> Tensor:
        """Latents to images `[batch, channel, *space]`, not clamped."""


class Turn(Protocol):
    """One optimizer's part of a training step: an `nn.Module` that owns exactly the parameters it steps.

    Parameters and buffers of it that are not `run.network`'s are kept in checkpoints. It may have `rate`, a multiple of
    the learning rate.
    """

    name: str
    betas: tuple[float, float]
    step: int
    """The optimizer steps done when `draw` is called; the core sets it, and only `draw` may read it."""

    def draw(self, generator: torch.Generator, batch: Batch) -> Any:
        """The random numbers of one step for the whole batch."""

    def __call__(self, batch: Batch, draws: Any, before: TurnOutput | None) -> TurnOutput:
        """Losses of one (micro) batch. `before` is the detached result of the turn before."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Exactly what its optimizer steps."""


class MeasuringTurn(Turn, Protocol):
    """A turn that is not of diffusion, and so says itself what validation measures."""

    def validation_metrics(self, step: TurnOutput, truth: Tensor, lesion: Tensor | None) -> list[tuple[str, Tensor]]:
        """Values by name, of which the mean over the validation set is shown.

        truth: the images. lesion: `[batch or 1, *space]`, true in lesions, where masks are known.
        """

    def summarise(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The means of all turns, and what follows from them; a turn need not have it."""

    def warning(self, step: int, means: Mapping[str, float]) -> str | None:
        """A sentence to warn with, if the means since the last call ask for it; a turn need not have it."""


class Strategy(Protocol):
    """How it is trained and sampled.

    Its settings class may have `unconditional = True`: the network gets no condition channels; and `gives`, the names
    of what its predictions have. The built object may have `image_size`, which the core sets to that of the recipe.
    """

    def turns(
        self, mode: Mode, space: Space, network: nn.Module, losses: Mapping[str, LossFunction], device: torch.device
    ) -> Sequence[Turn]:
        """The turns of one training step, in order."""


class DiffusionStrategy(Protocol):
    """What a diffusion strategy writes; its one turn is `medgen.training.objective.Objective`.

    The built object also has `sampling_steps`, the number of steps it samples with unless told.
    """

    sampling_steps: int

    def draw(self, generator: torch.Generator, batch_size: int, shape: Sequence[int]) -> Draws:
        """Timesteps and noise for `batch_size` samples of `shape`, on the generator's device."""

    def corrupt(self, x0: Tensor, draws: Draws) -> Noisy:
        """The forward process."""

    def read(self, output: Tensor, xt: Tensor, t: Tensor) -> Prediction:
        """The output for xt at t `[batch]` in 0..1000: brought to fp32, in the units of the target and as x0."""

    def sample(self, predict: Predict, noise: Tensor, steps: int, draw: DrawNoise) -> Tensor:
        """Noise `[batch, channel, *space]` to x0. `steps` is the number of sampling steps."""


Predict = Callable[["Tensor", float], Prediction]
"""`predict(xt, t)`: xt `[batch, channel, *space]`, t a float in 0..1000, the same for the whole batch."""
DrawNoise = Callable[[], "Tensor"]
"""Fresh standard normal noise of the batch's shape, for samplers that are stochastic."""
LossFunction = Callable[[Any, Any], "Tensor"]
"""`loss(prediction, noisy)`: `[batch]`, fp32."""


class Settings(Protocol):
    """A settings class may have this, for what only several tables together can tell."""

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Mistakes, each as `<key path>: <what is wrong>. <What to do>.`"""


class StopFit(Exception):
    """Raised inside an epoch's end when the run is to stop; whoever resumes works that end off again."""
