"""Measure a model, with the same noise and times at every validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from medgen import seeds
from medgen.api.hooks import hookimpl
from medgen.api.interfaces import Turn
from medgen.api.values import Batch, StopFit, TurnOutput
from medgen.ranks import collectives
from medgen.run.run import TrainingRun
from medgen.training.lesion_masks import lesion_masks
from medgen.training.sampling import autocast, evaluation
from medgen.training.turn_values import detach


class Validation:
    """Validate: loss per term, by time, in and outside lesions; PSNR of one-step estimates of x0.

    Lesions are where a mask is set that the model is given or generates; without a mask there are
    no such figures.
    """

    def __init__(self, run: TrainingRun):
        self.run = run

    @hookimpl(trylast=True)
    def medgen_validate(self, run: TrainingRun) -> Mapping[str, float] | None:
        if run.val.size == 0:
            return None
        sums = self._sums()
        with evaluation(run.network), torch.no_grad():
            for number, start in enumerate(
                range(0, self._samples(), run.recipe.training.batch_size)
            ):
                if run.stop_agreed():  # asked by all ranks for each batch, whoever measures it
                    raise StopFit
                if number % collectives.size() == collectives.rank():
                    self._add(sums, start, number)
        names = collectives.broadcast_object(
            list(sums)
        )  # rank 0 has them all, as it has the first batch
        table = collectives.all_reduce_sum(torch.stack([sums[name] for name in names])).tolist()
        metrics = {
            name: total / count for name, (total, count) in zip(names, table, strict=True) if count
        }
        for turn in run.turns.values():
            metrics = turn.summarise(metrics)
        return metrics

    @hookimpl(trylast=True)
    def medgen_memory_check(self, run: TrainingRun) -> None:
        if run.val.size and run.recipe.training.validate_every:
            with run.trying("validation"), evaluation(run.network), torch.no_grad():
                self._add(self._sums(), 0, 0)

    def _sums(self) -> dict[str, Tensor]:
        return defaultdict(lambda: torch.zeros(2, dtype=torch.float64, device=self.run.device))

    def _samples(self) -> int:
        training = self.run.recipe.training
        cap = training.val_batches * training.batch_size
        return min(self.run.val.size, cap) if cap else self.run.val.size

    def _add(self, sums: dict[str, Tensor], start: int, number: int) -> None:
        run = self.run
        stop = min(start + run.recipe.training.batch_size, self._samples())
        numbers = np.arange(start, stop)
        batch = run.to_device(run.val.stored(numbers))
        truth = run.val.read(numbers).image.to(run.device).float()
        step: TurnOutput | None = None
        for name, turn in run.turns.items():
            turn.step = run.step
            draws = turn.draw(
                seeds.stream(run.recipe.run.seed, f"val/{name}", number, device=run.device), batch
            )
            with autocast(run.device, run.recipe.training.precision):
                step = detach(turn(batch, draws, step))
            for key, values in self._measure(turn, batch, step, truth):
                sums[key] += torch.stack(
                    [values.double().sum(), torch.tensor(float(values.numel()), device=run.device)]
                )

    def _measure(
        self, turn: Turn, batch: Batch, step: TurnOutput, truth: Tensor
    ) -> list[tuple[str, Tensor]]:
        """truth: the images, which cannot always be decoded from what the space made of them."""
        weights, lesion = self.run.recipe.loss_weights, self._lesion(batch, truth)
        total = torch.stack(
            [weights.get(name, 1.0) * each for name, each in step.losses.items()]
        ).sum(0)
        rows = [("loss/val", total)] if turn is next(iter(self.run.turns.values())) else []
        rows += [(f"loss/val/{name}", each) for name, each in step.losses.items()]
        return rows + turn.validation_metrics(step, total, truth, lesion)

    def _lesion(self, batch: Batch, truth: Tensor) -> Tensor | None:
        masks = lesion_masks(self.run.mode, self.run.store.masks, truth, batch.condition)
        return None if masks is None else masks.any(1)


def register_validation(run: TrainingRun) -> None:
    """Make the core's own validation one of the run's hooks, once."""
    if not run.plugins.has_plugin("validation"):
        run.plugins.register(Validation(run), name="validation")


def validate(run: TrainingRun) -> dict[str, float]:
    """Merge the answers of all `medgen_validate`; those on rank 0 count. Collective."""
    register_validation(run)
    metrics: dict[str, float] = {}
    for answer in run.hooks.medgen_validate(run=run):
        metrics.update(answer or {})
    return dict(collectives.broadcast_object(metrics))
