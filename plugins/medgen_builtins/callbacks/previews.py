"""What the model makes now: samples from fixed noise and fixed masks, and how one of them came about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medgen import field, ge, gt, hookimpl, settings

if TYPE_CHECKING:
    from medgen.kinds import Batch
    from medgen.run import Run

medgen_api = 1


@settings
class Previews:
    """A grid of samples as PNG in the run's folder `previews/` and in TensorBoard, and a denoising trajectory."""

    every: int = field(1, help="with each so many validations", check=gt(0))
    count: int = field(8, help="samples in the grid", check=gt(0))
    steps: int = field(0, help="sampling steps; 0: the strategy's own", check=ge(0))
    may_change = ("every", "count", "steps")

    def build(self, run: Run) -> Previewing:
        return Previewing(self)


class Previewing:
    """Takes part in validation, so that averaged weights are used where there are any."""

    def __init__(self, settings: Previews):
        self.settings = settings

    @hookimpl
    def medgen_validate(self, run: Run) -> Mapping[str, float] | None:
        # by position, not by a counter of its own: what a stopped run has shown changes nothing
        every = self.settings.every * run.recipe.training.validate_every
        if run.leads and ((run.epochs_ended + 1) % every == 0 or run.complete):
            self.show(run)
        return None

    @hookimpl
    def medgen_rehearse(self, run: Run) -> None:
        from medgen.run import Trial

        if run.leads and run.recipe.training.validate_every:
            fewer = self.settings.count // 2
            run.trial = Trial("previews", f"callbacks.previews.count={fewer}" if fewer else "callbacks.previews=false")
            if hasattr(run.strategy, "reconstruct"):
                self._reconstructions(run, self._examples(run))
            else:
                self._sample(run, self._examples(run), steps=1)

    def show(self, run: Run) -> None:
        """Sample and log; the masks and their images are the first with the largest lesions of the held-out slices."""
        from medgen import pictures

        batch = self._examples(run)
        if hasattr(run.strategy, "reconstruct"):
            picture = self._reconstructions(run, batch)
            pictures.save(picture, run.dir / "previews" / f"reconstructions_{run.step:07d}.png")
            run.log({}, {"previews/reconstructions": picture})
            return
        samples, path = self._sample(run, batch, self.settings.steps or None)
        shown = {"previews/samples": self._grid(run, batch, samples), "previews/trajectory": path}
        for name, picture in shown.items():
            pictures.save(picture, run.dir / "previews" / f"{name.split('/')[1]}_{run.step:07d}.png")
        run.log({}, shown)

    def _reconstructions(self, run: Run, batch: Batch) -> Any:
        """A row per sample: each channel, what came back of it, and the difference, grey where there is none."""
        from medgen import pictures, sampling

        with sampling.evaluation(run.network), sampling.autocast(run.device, run.recipe.training.precision):
            made = run.strategy.reconstruct(run.network, batch.image.to(run.device).float()).cpu().numpy()
        masks, rows = batch.condition.numpy(), []
        for real, back, outlined in zip(batch.image.float().numpy(), made, masks, strict=True):
            pairs = zip(real, back, strict=True)
            triples = [(pictures.tile(a, outlined), pictures.tile(b), pictures.tile(b - a)) for a, b in pairs]
            rows.append([each for triple in triples for each in triple])
        half = (len(rows) + 1) // 2
        return pictures.grid([left + right for left, right in zip(rows[:half], [*rows[half:], []], strict=False)])

    def _examples(self, run: Run) -> Batch:
        import numpy as np

        feed = run.val if run.val.size else run.train
        area = sum((each[feed.rows] for each in run.store.lesion_area.values()), np.zeros(len(feed.rows)))
        order = np.argsort(-area, kind="stable")
        # spread over the larger half: the very largest are neighbours in one patient
        half = order[: max(1, len(order) // 2)]
        chosen = half[np.linspace(0, len(half) - 1, self.settings.count).astype(int)]
        return feed.read(chosen * feed.views)

    def _sample(self, run: Run, batch: Batch, steps: int | None) -> tuple[Any, Any]:
        from medgen import sampling, seeds

        seen: list[tuple[float, Any]] = []
        generators = [seeds.stream(run.recipe.run.seed, "preview", index) for index in range(self.settings.count)]
        draw = sampling.noise(generators, run.space.shape(batch.condition.shape[2:]), run.device)
        condition = batch.condition.to(run.device).float()
        with sampling.evaluation(run.network), sampling.autocast(run.device, run.recipe.training.precision):
            samples = sampling.sample(
                run.strategy, run.space, run.network, condition, draw, steps,
                watch=lambda t, x0: seen.append((t, x0[:3])),
            )  # fmt: skip
        return samples.float().cpu().numpy(), self._trajectory(run, seen)

    def _trajectory(self, run: Run, seen: list[tuple[float, Any]]) -> Any:
        import numpy as np

        from medgen import pictures

        chosen = [seen[index][1] for index in np.linspace(0, len(seen) - 1, 8).astype(int)]
        columns = [run.space.decode(x0.float()).clamp(-1, 1).cpu().numpy() for x0 in chosen]
        return pictures.grid([[pictures.tile(column[row, 0]) for column in columns] for row in range(len(columns[0]))])

    def _grid(self, run: Run, batch: Batch, samples: Any) -> Any:
        """A row per sample: each real image, then each generated one, with the masks of the condition outlined."""
        from medgen import pictures

        masks, rows = batch.condition.numpy(), []
        for index, sample in enumerate(samples):
            real = batch.image[index].numpy()
            rows.append([pictures.tile(each, masks[index]) for each in (*real, *sample)])
        half = (len(rows) + 1) // 2
        return pictures.grid([left + right for left, right in zip(rows[:half], [*rows[half:], []], strict=False)])


@hookimpl
def medgen_callbacks() -> dict[str, type]:
    return {"previews": Previews}
