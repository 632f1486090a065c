"""Draw previews of the model, and arrange them as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from medgen import Batch, Callback, DiffusionStrategy, Run, hookimpl, pictures, seeds
from medgen.ranks import collectives
from medgen.training import lesion_region, sampling
from medgen.training.lesion_masks import mask_channels

FOLLOWED, TIMES = 3, 8
"""Number of samples in the trajectory, and of times for each."""


class Previewing(Callback):
    """Takes part in validation, so that averaged weights are used where there are any."""

    def __init__(self, every: int, count: int, steps: int):
        self.every, self.count, self.steps = every, count, steps

    @hookimpl
    def medgen_validate(self, run: Run) -> Mapping[str, float] | None:
        # by position, not by a counter of its own: what a stopped run has shown changes nothing
        every = self.every * run.recipe.training.validate_every
        if (run.epochs_ended + 1) % every == 0 or run.complete:
            self.show(run)
        return None

    @hookimpl
    def medgen_memory_check(self, run: Run) -> None:
        if not run.recipe.training.validate_every:
            return
        fewer = self.count // 2
        with run.trying(
            "previews", f"callbacks.previews.count={fewer}" if fewer else "callbacks.previews=false"
        ):
            if isinstance(run.strategy, DiffusionStrategy):
                self._sample(run, run.strategy, steps=1)
            else:
                self._reconstruct(run)

    def show(self, run: Run) -> None:
        """Sample and log; the masks and their images are the first with the largest lesions of the
        held-out slices.
        """
        for name, picture in self._pictures(run).items():
            if run.is_rank_zero:
                pictures.save(picture, run.dir / "previews" / f"{name}_{run.step:07d}.png")
            run.log({}, {f"previews/{name}": picture})

    def _pictures(self, run: Run) -> dict[str, np.ndarray]:
        """Return pictures by name. Collective: all ranks share the work and get the result."""
        examples = self._examples(run, range(self.count))
        outlined = self._outlined(run, examples)
        if not isinstance(run.strategy, DiffusionStrategy):
            return {
                "reconstructions": self._reconstructions(
                    run, examples, self._reconstruct(run), outlined
                )
            }
        samples, path = self._sample(run, run.strategy, self.steps or None)
        return {
            "samples": self._grid(run, examples, samples, outlined),
            "trajectory": self._trajectory(run, path),
        }

    def _rows(self) -> Sequence[int]:
        """Return the samples of this rank; a rank without any computes a spare one."""
        return collectives.local_indices(self.count) or [0]

    def _examples(self, run: Run, rows: Sequence[int]) -> Batch:
        slices = run.val if run.val.size else run.train
        return slices.read(slices.with_large_lesions(self.count)[list(rows)])

    def _outlined(self, run: Run, batch: Batch) -> np.ndarray:
        """Return the masks of the condition, `[count, mask, *space]`; scans get no outline."""
        return batch.condition[:, mask_channels(run.mode.condition, run.masks)].numpy()

    def _reconstruct(self, run: Run) -> np.ndarray:
        """Reconstruct the examples, `[count, channel, *space]`."""
        images = self._examples(run, self._rows()).image.to(run.device).float()
        with (
            sampling.evaluation(run.network),
            sampling.autocast(run.device, run.recipe.training.precision),
        ):
            made = run.strategy.reconstruct(run.network, images).float()
        return collectives.all_gather_rows(made, self.count).cpu().numpy()

    def _sample(
        self, run: Run, strategy: DiffusionStrategy, steps: int | None
    ) -> tuple[np.ndarray, Tensor]:
        """Draw samples `[count, channel, *space]`, with estimates of x0 along the first ones,
        `[sample, time, ...]`.
        """
        rows, seen = self._rows(), list[Tensor]()
        examples = self._examples(run, rows).map(lambda part: part.to(run.device).float())
        image, condition, numbers, place = examples
        given = lesion_region.given(run.mode, run.space, image, condition)
        generators = [seeds.stream(run.recipe.run.seed, "preview", row) for row in rows]
        draw = sampling.noise(generators, run.space.shape(condition.shape[2:]), run.device)
        with (
            sampling.evaluation(run.network),
            sampling.autocast(run.device, run.recipe.training.precision),
        ):
            samples = sampling.sample(
                strategy, run.space, run.network, condition, draw, steps,
                watch=lambda t, x0: seen.append(x0[:FOLLOWED]), given=given, numbers=numbers, place=place,
                masks=mask_channels(run.mode.condition, run.masks),
            )  # fmt: skip
        path = torch.stack(
            [seen[index] for index in np.linspace(0, len(seen) - 1, TIMES).astype(int)], 1
        )
        followed = min(FOLLOWED, self.count)
        shared = collectives.all_gather_rows(samples.float(), self.count)
        return shared.cpu().numpy(), collectives.all_gather_rows(path.float(), followed)

    def _trajectory(self, run: Run, path: Tensor) -> np.ndarray:
        """Arrange estimates: a row per sample, of volumes three, a column per time."""
        columns = [
            run.space.decode(path[:, time]).clamp(-1, 1).cpu().numpy() for time in range(TIMES)
        ]
        rows: list[list[np.ndarray]] = []
        for row in range(len(path)):
            shown = self._shown(run, columns[-1][row], ())
            each_time = [pictures.tiles(column[row, 0], shown=shown) for column in columns]
            rows += map(list, zip(*each_time, strict=True))
        return pictures.grid(rows)

    def _shown(
        self, run: Run, images: np.ndarray, masks: Sequence[np.ndarray] | np.ndarray
    ) -> np.ndarray | None:
        """Return the masks given and those that images `[channel, *space]` are, together, set where
        > 0; None without any.
        """
        own = [] if run.mode.pooled else mask_channels(run.mode.images, run.masks)
        every = [*masks, *images[own]]
        return np.max(every, axis=0) if every else None

    def _reconstructions(
        self, run: Run, batch: Batch, made: np.ndarray, masks: np.ndarray
    ) -> np.ndarray:
        """Arrange a row per sample: each channel, its reconstruction, and the difference, grey
        where 0; of volumes three planes of each, where most of the lesion is.
        """
        rows = []
        for real, back, outlined in zip(batch.image.float().numpy(), made, masks, strict=True):
            shown, row = self._shown(run, real, outlined), list[np.ndarray]()
            for a, b in zip(real, back, strict=True):
                row += pictures.tiles(a, outlined, shown)
                row += pictures.tiles(b, shown=shown) + pictures.tiles(b - a, shown=shown)
            rows.append(row)
        return _two_columns(rows)

    def _grid(self, run: Run, batch: Batch, samples: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Arrange a row per sample: each real image, then each generated one, with its masks
        outlined.

        Lesions in given images: each real image without outlines, each as it was made, then with
        its masks outlined.
        """
        rows = []
        for index, sample in enumerate(samples):
            real, margin = batch.image[index].numpy(), run.mode.margin
            row = self._row(run, real, masks[index], outlined=not margin)
            row += self._row(run, sample, masks[index], outlined=False) if margin else []
            rows.append(row + self._row(run, sample, masks[index]))
        return _two_columns(rows)

    def _row(
        self, run: Run, images: np.ndarray, masks: np.ndarray, outlined: bool = True
    ) -> list[np.ndarray]:
        """Return the tiles of images `[channel, *space]`, of volumes where most of the lesion is."""
        shown, drawn = self._shown(run, images, masks), [*masks] if outlined else []
        return [tile for each in images for tile in pictures.tiles(each, drawn, shown)]


def _two_columns(rows: Sequence[list[np.ndarray]]) -> np.ndarray:
    """Place the second half of the rows beside the first."""
    half = (len(rows) + 1) // 2
    return pictures.grid(
        [left + right for left, right in zip(rows[:half], [*rows[half:], []], strict=False)]
    )
