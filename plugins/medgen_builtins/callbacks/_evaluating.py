"""Measure a small sample in validation, by what is taught again in each process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from medgen import Batch, Callback, DataError, StopFit, hookimpl, seeds
from medgen.config.registry import Registry
from medgen.errors import Problem
from medgen.evaluation import obedience, planes, run_slices, segmentation
from medgen.evaluation.yardstick import Yardstick, sides_of
from medgen.ranks import collectives
from medgen.training import sampling, tiles
from medgen.training.lesion_masks import mask_channels
from medgen.training.number_channels import of_whole

if TYPE_CHECKING:
    from medgen.api.interfaces import DiffusionStrategy
    from medgen.api.recipe import Run
    from medgen.evaluation.samples import Samples

BLOCK = 16
"""Samples that are computed together, at most, so that bits do not depend on the number of ranks."""
FEWEST = 2
"""Persons without whom no KID is known."""


class Wanted(NamedTuple):
    """What to measure, and when; see the settings `Evaluation`. features: extractors by figures."""

    every: int
    samples: int
    steps: int
    features: dict[str, str]
    obedience: bool


class Judges(NamedTuple):
    """What samples are measured with. kid: by the figure's name. segmenter, ceiling: None where
    there are no masks.

    ceiling: Dice of the segmenter on the held-out slices themselves.
    """

    kid: dict[str, Yardstick]
    segmenter: nn.Module | None
    ceiling: float


class Evaluating(Callback):
    """Takes part in validation, so that averaged weights are used where there are any.

    Checkpoints keep none of it: noise, slices and what is taught depend on seed and data.
    """

    def __init__(self, wanted: Wanted, run: Run):
        self.wanted = wanted
        self._numbers = run_slices.numbers_of(run, run.val)
        persons = len(np.unique(run.val.facts(self._numbers).person))
        if persons < FEWEST:
            what = f"persons held out with slices to compare with: {persons}, expected at least {FEWEST}"
            raise DataError(
                Problem("callbacks.evaluation", what, "Raise data.val_fraction, or add patients")
            )
        registry = Registry.load()
        self._extractors = {
            figure: planes.extractor(
                registry.get("features", name).settings_class(), run.recipe.data.axes, run.device
            )
            for figure, name in wanted.features.items()
        }
        self._judges: Judges | None = None

    @hookimpl
    def medgen_validate(self, run: Run) -> Mapping[str, float] | None:
        # by position, as previews are: what a stopped run has measured changes nothing
        every = self.wanted.every * run.recipe.training.validate_every
        if (run.epochs_ended + 1) % every and not run.complete:
            return None
        images = self._sample(run)
        return dict(collectives.on_rank_zero(lambda: self._figures(run, images)))

    @hookimpl
    def medgen_memory_check(self, run: Run) -> None:
        if run.recipe.training.validate_every:
            with run.trying("evaluation"):
                self._block(run, self._blocks()[0], steps=1)

    def _blocks(self) -> list[np.ndarray]:
        """Return samples of each block, of equal size; the last may exceed what is asked for."""
        size = -(-self.wanted.samples // -(-self.wanted.samples // BLOCK))
        return [np.arange(start, start + size) for start in range(0, self.wanted.samples, size)]

    def _sample(self, run: Run) -> Tensor:
        """Draw the samples, `[count, channel, *space]`. Collective: all ranks share the work and
        get the result.
        """
        blocks, mine = self._blocks(), list[Tensor]()
        for number, samples in enumerate(blocks):
            if run.stop_agreed():  # asked by all ranks for each block, whoever makes it
                raise StopFit
            if number in collectives.local_indices(len(blocks)):
                mine.append(self._block(run, samples, self.wanted.steps or None))
        spare = torch.zeros(
            len(blocks[0]), *run.val.whole(self._numbers[:1]).image.shape[1:], device=run.device
        )
        made = collectives.all_gather_rows(torch.stack(mine or [spare]), len(blocks))
        return made.flatten(0, 1)[: self.wanted.samples].cpu()

    def _block(self, run: Run, samples: np.ndarray, steps: int | None) -> Tensor:
        batch = self._given(run, samples).map(lambda part: part.to(run.device).float())
        generators = [
            seeds.stream(run.recipe.run.seed, "evaluation", int(sample)) for sample in samples
        ]
        draw = sampling.noise(generators, run.space.shape(batch.condition.shape[2:]), run.device)
        with (
            sampling.evaluation(run.network),
            sampling.autocast(run.device, run.recipe.training.precision),
        ):
            strategy = cast("DiffusionStrategy", run.strategy)  # a recipe of another is refused
            return sampling.sample(
                strategy,
                run.space,
                run.network,
                batch.condition,
                draw,
                steps,
                numbers=batch.numbers,
                place=of_whole(run.mode, batch.condition),
                tiles=tiles.of_crops(run.space, run.recipe.data),
                masks=mask_channels(run.mode.condition, run.masks),
            ).float()

    def _given(self, run: Run, samples: np.ndarray) -> Batch:
        """The whole held-out slices whose masks the samples are given: in an order of the seed's, from
        its start again.
        """
        count = len(self._numbers)
        order = torch.randperm(
            count, generator=seeds.stream(run.recipe.run.seed, "evaluation/conditions")
        )
        return run.val.whole(self._numbers[order.numpy()[samples % count]])

    def _figures(self, run: Run, images: Tensor) -> dict[str, float]:
        """Measure the samples."""
        self._judges = judges = self._judges or self._taught(run)
        condition = self._given(run, np.arange(self.wanted.samples)).condition
        made = run_slices.generated(run, run.val, images, condition)
        figures = {name: yardstick.kid(made) for name, yardstick in judges.kid.items()}
        if judges.segmenter is not None:
            figures |= {
                "obedience": _dice(judges.segmenter, made),
                "obedience/real": judges.ceiling,
            }
        return figures

    def _taught(self, run: Run) -> Judges:
        """Fit features and segmenter on slices to train on: the same for the same data and seed."""
        seed, held_out = (
            run.recipe.run.seed,
            run_slices.real(run, run.val, self._numbers, "held out"),
        )
        heads = run_slices.real(
            run, run.train, run_slices.numbers_of(run, run.train, lesions_only=False), "trained on"
        )
        kid = {
            name: Yardstick(
                sides_of(each, heads, [held_out], seeds.derive(seed, f"evaluation/{name}"))
            )
            for name, each in self._extractors.items()
        }
        if not self.wanted.obedience:
            return Judges(kid, None, float("nan"))
        segmenter = self._segmenter(run)
        return Judges(kid, segmenter, _dice(segmenter, held_out))

    def _segmenter(self, run: Run) -> nn.Module:
        settings = Registry.load().get("segmenters", obedience.SEGMENTER).settings_class()
        lesions = run_slices.real(
            run, run.train, run_slices.numbers_of(run, run.train), "trained on"
        )
        seed = seeds.derive(run.recipe.run.seed, "evaluation/segmenter")
        with torch.enable_grad():
            return segmentation.train(
                settings, lesions, steps=obedience.STEPS, seed=seed, device=run.device
            )


def _dice(segmenter: nn.Module, samples: Samples) -> float:
    """The mean over samples of the Dice of what is found and the mask."""
    return float(
        np.mean(obedience.dice(segmentation.predict(segmenter, samples.images), samples.masks))
    )
