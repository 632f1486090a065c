"""Previews of the model: samples from fixed noise and fixed masks, and trajectories of some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medgen import Callback, CallbackSettings, DiffusionStrategy, between, field, gt, hookimpl, settings

if TYPE_CHECKING:
    from medgen.api.recipe import Run
    from medgen.api.values import Batch

medgen_api = 1

FOLLOWED, TIMES = 3, 8
"""Number of samples in the trajectory, and of times for each."""


@settings
class Previews(CallbackSettings):
    """A grid of samples as PNG in the run's folder `previews/` and in TensorBoard, and a denoising trajectory."""

    every: int = field(1, help="validations between previews", check=gt(0))
    count: int = field(8, help="number of samples in the grid", check=between(1, 1024))
    steps: int = field(0, help="sampling steps; 0: the strategy's own", check=between(0, 10**6))
    may_change = ("every", "count", "steps")

    def build(self, run: Run) -> Previewing:
        return Previewing(self)


class Previewing(Callback):
    """Takes part in validation, so that averaged weights are used where there are any."""

    def __init__(self, settings: Previews):
        self.settings = settings

    @hookimpl
    def medgen_validate(self, run: Run) -> Mapping[str, float] | None:
        # by position, not by a counter of its own: what a stopped run has shown changes nothing
        every = self.settings.every * run.recipe.training.validate_every
        if (run.epochs_ended + 1) % every == 0 or run.complete:
            self.show(run)
        return None

    @hookimpl
    def medgen_memory_check(self, run: Run) -> None:
        if not run.recipe.training.validate_every:
            return
        fewer = self.settings.count // 2
        with run.trying("previews", f"callbacks.previews.count={fewer}" if fewer else "callbacks.previews=false"):
            if isinstance(run.strategy, DiffusionStrategy):
                self._sample(run, run.strategy, steps=1)
            else:
                self._reconstruct(run)

    def show(self, run: Run) -> None:
        """Sample and log; the masks and their images are the first with the largest lesions of the held-out slices."""
        from medgen import pictures

        for name, picture in self._pictures(run).items():
            if run.is_rank_zero:
                pictures.save(picture, run.dir / "previews" / f"{name}_{run.step:07d}.png")
            run.log({}, {f"previews/{name}": picture})

    def _pictures(self, run: Run) -> dict[str, Any]:
        """Return pictures by name. Collective: all ranks share the work and get the result."""
        examples = self._examples(run, range(self.settings.count))
        outlined = self._outlined(run, examples)
        if not isinstance(run.strategy, DiffusionStrategy):
            return {"reconstructions": self._reconstructions(examples, self._reconstruct(run), outlined)}
        samples, path = self._sample(run, run.strategy, self.settings.steps or None)
        return {"samples": self._grid(examples, samples, outlined), "trajectory": self._trajectory(run, path)}

    def _rows(self) -> Sequence[int]:
        """Return the samples of this rank; a rank without any computes a spare one."""
        from medgen.ranks import collectives

        return collectives.local_indices(self.settings.count) or [0]

    def _examples(self, run: Run, rows: Sequence[int]) -> Batch:
        slices = run.val if run.val.size else run.train
        return slices.read(slices.with_large_lesions(self.settings.count)[list(rows)])

    def _outlined(self, run: Run, batch: Batch) -> Any:
        """Return the masks of the condition, `[count, mask, *space]`; scans get no outline."""
        from medgen.training.lesion_masks import mask_channels

        return batch.condition[:, mask_channels(run.mode.condition, run.masks)].numpy()

    def _reconstruct(self, run: Run) -> Any:
        """Reconstruct the examples, `[count, channel, *space]`."""
        from medgen.ranks import collectives
        from medgen.training import sampling

        images = self._examples(run, self._rows()).image.to(run.device).float()
        with sampling.evaluation(run.network), sampling.autocast(run.device, run.recipe.training.precision):
            made = run.strategy.reconstruct(run.network, images).float()
        return collectives.all_gather_rows(made, self.settings.count).cpu().numpy()

    def _sample(self, run: Run, strategy: DiffusionStrategy, steps: int | None) -> tuple[Any, Any]:
        """Draw samples `[count, channel, *space]`, with estimates of x0 along the first ones, `[sample, time, ...]`."""
        import numpy as np
        import torch

        from medgen import seeds
        from medgen.ranks import collectives
        from medgen.training import sampling

        rows, seen = self._rows(), list[torch.Tensor]()
        condition = self._examples(run, rows).condition.to(run.device).float()
        generators = [seeds.stream(run.recipe.run.seed, "preview", row) for row in rows]
        draw = sampling.noise(generators, run.space.shape(condition.shape[2:]), run.device)
        with sampling.evaluation(run.network), sampling.autocast(run.device, run.recipe.training.precision):
            samples = sampling.sample(
                strategy, run.space, run.network, condition, draw, steps,
                watch=lambda t, x0: seen.append(x0[:FOLLOWED]),
            )  # fmt: skip
        path = torch.stack([seen[index] for index in np.linspace(0, len(seen) - 1, TIMES).astype(int)], 1)
        followed = min(FOLLOWED, self.settings.count)
        shared = collectives.all_gather_rows(samples.float(), self.settings.count)
        return shared.cpu().numpy(), collectives.all_gather_rows(path.float(), followed)

    def _trajectory(self, run: Run, path: Any) -> Any:
        """Arrange estimates: a row per sample, a column per time."""
        from medgen import pictures

        columns = [run.space.decode(path[:, time]).clamp(-1, 1).cpu().numpy() for time in range(TIMES)]
        return pictures.grid([[pictures.tile(column[row, 0]) for column in columns] for row in range(len(path))])

    def _reconstructions(self, batch: Batch, made: Any, masks: Any) -> Any:
        """Arrange a row per sample: each channel, its reconstruction, and the difference, grey where 0."""
        from medgen import pictures

        rows = []
        for real, back, outlined in zip(batch.image.float().numpy(), made, masks, strict=True):
            pairs = zip(real, back, strict=True)
            triples = [(pictures.tile(a, outlined), pictures.tile(b), pictures.tile(b - a)) for a, b in pairs]
            rows.append([each for triple in triples for each in triple])
        return _two_columns(rows)

    def _grid(self, batch: Batch, samples: Any, masks: Any) -> Any:
        """Arrange a row per sample: each real image, then each generated one, with its masks outlined."""
        from medgen import pictures

        rows = []
        for index, sample in enumerate(samples):
            real = batch.image[index].numpy()
            rows.append([pictures.tile(each, masks[index]) for each in (*real, *sample)])
        return _two_columns(rows)


def _two_columns(rows: Sequence[list[Any]]) -> Any:
    """Place the second half of the rows beside the first."""
    from medgen import pictures

    half = (len(rows) + 1) // 2
    return pictures.grid([left + right for left, right in zip(rows[:half], [*rows[half:], []], strict=False)])


@hookimpl
def medgen_callbacks() -> dict[str, type]:
    return {"previews": Previews}
