"""What the core measures of a diffusion model: with the same noise and times at every validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from medgen import seeds
from medgen.hookspecs import hookimpl
from medgen.kinds import TIME_SCALE, Batch, Step
from medgen.run import Run
from medgen.sampling import autocast, evaluation
from medgen.trainer import StopFit

BINS = 5


class Validation:
    """Loss per term, by time, inside and outside lesions, and the PSNR of the one-step estimate of x0.

    Lesions are where any condition channel is set, or, in models that generate masks, where the generated mask is.
    """

    def __init__(self, run: Run):
        self.run = run

    @hookimpl
    def medgen_validate(self, run: Run) -> Mapping[str, float] | None:
        if run.val.size == 0:
            return None
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(2, dtype=torch.float64, device=run.device))
        with evaluation(run.network), torch.no_grad():
            for number, start in enumerate(range(0, self._samples(), run.recipe.training.batch_size)):
                if run.must_stop():
                    raise StopFit
                self._add(sums, start, number)
        table = torch.stack(list(sums.values())).tolist()
        return {name: total / count for name, (total, count) in zip(sums, table, strict=True) if count}

    def _samples(self) -> int:
        training = self.run.recipe.training
        cap = training.val_batches * training.batch_size
        return min(self.run.val.size, cap) if cap else self.run.val.size

    def _add(self, sums: dict[str, Tensor], start: int, number: int) -> None:
        run = self.run
        stop = min(start + run.recipe.training.batch_size, self._samples())
        batch = run.to_device(run.val.read(np.arange(start, stop)))
        for name, turn in run.turns.items():
            draws = turn.draw(seeds.stream(run.recipe.run.seed, f"val/{name}", number, device=run.device), batch)
            with autocast(run.device, run.recipe.training.precision):
                step = turn(batch, draws, None)
            for key, values in self._measure(batch, step):
                sums[key] += torch.stack(
                    [values.double().sum(), torch.tensor(float(values.numel()), device=run.device)]
                )

    def _measure(self, batch: Batch, step: Step) -> list[tuple[str, Tensor]]:
        run = self.run
        weights = run.recipe.loss_weights
        total = torch.stack([weights[name] * each for name, each in step.losses.items()]).sum(0)
        rows = [("loss/val", total)] + [(f"loss/val/{name}", each) for name, each in step.losses.items()]
        bins = (step.noisy.t / TIME_SCALE * BINS).long().clamp(0, BINS - 1)
        for index in range(BINS):
            low, high = (int(edge * TIME_SCALE / BINS) for edge in (index, index + 1))
            rows.append((f"loss/val/t_{low:03d}_{high:04d}", total[bins == index]))
        estimate, truth = (
            run.space.decode(z).clamp(-1, 1) for z in (step.prediction.x0.float(), step.noisy.x0.float())
        )
        squared = (estimate - truth).square()
        rows.append(("psnr/x0", 10 * torch.log10(4.0 / squared.flatten(1).mean(1).clamp_min(1e-10))))
        lesion = self._lesion(batch, truth)
        if lesion is not None:
            squared, lesion = squared.mean(1), lesion.expand(truth.shape[0], *truth.shape[2:])
            rows += [("mse/lesion", squared[lesion]), ("mse/outside", squared[~lesion])]
        return rows

    def _lesion(self, batch: Batch, truth: Tensor) -> Tensor | None:
        run = self.run
        if batch.condition.shape[1]:
            return (batch.condition > 0).any(1)
        masks = [index for index, name in enumerate(run.mode.images) if name in run.store.masks]
        return (truth[:, masks] > 0).any(1) if masks and not run.mode.pooled else None
