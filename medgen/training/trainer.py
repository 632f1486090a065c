"""The loop. One step: a batch, its draws, each turn's losses and gradients, an update; no sync with
the device.
"""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from typing import Any

import attrs
import torch
from torch import Tensor

from medgen import seeds
from medgen.api.interfaces import Turn
from medgen.api.tables import TrainingSettings
from medgen.api.values import Batch, StopFit, TurnOutput
from medgen.errors import StorageError
from medgen.ranks import collectives, ddp, heartbeat
from medgen.run.run import TrainingRun
from medgen.training import blame, compiling, memory_check
from medgen.training.readings import Rate, Readings
from medgen.training.sampling import autocast
from medgen.training.throughput import Throughput
from medgen.training.turn_values import cut, detach
from medgen.training.validation import register_validation, validate


def fit(run: TrainingRun) -> None:
    """Train until every step is done or someone stops the run; callbacks hear of the end either
    way.
    """
    error: BaseException | None = None
    try:
        run.hooks.medgen_run_start(run=run)
        if not run.hooks.medgen_fit(run=run):
            with heartbeat.working():
                Trainer(run).fit()
    except Exception as caught:
        error = caught
        if compiling.is_failure(caught, run):
            raise compiling.error(compiling.read(caught), run) from caught
        if (told := blame.plugin_error(run, caught)) is None:
            raise
        raise told from caught
    except BaseException as caught:
        error = caught
        raise
    finally:
        run.hooks.medgen_run_end(run=run, error=error)
        run.train.close()
        with suppress(StorageError) if error else nullcontext():  # the first error is told
            run.metrics_file.close()


class Trainer:
    """The core's own fit."""

    def __init__(self, run: TrainingRun, rate: Rate | None = None, batch_size: int | None = None):
        """rate: learning rate by step, else the recipe's. batch_size: samples of a step, else the
        recipe's.
        """
        self.run, self.rate, self.batch_size = run, rate or run.learning_rate, batch_size
        self.training = self._settings()
        register_validation(run)
        self.rows = ddp.local_rows(self.training.batch_size, self.training.accumulate)
        self.weights = run.recipe.loss_weights
        self.forward: dict[str, Any] = dict(run.turns)
        self._compile()
        self.forward = {name: ddp.wrap_ddp(each) for name, each in self.forward.items()}
        self.speed = Throughput(run)
        self.readings = Readings(run, self.training, self.rate, self.speed)
        run.read_with(self.flush)
        if self.training.deterministic:
            os.environ.setdefault(
                "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
            )  # cuBLAS is deterministic only with it
        torch.use_deterministic_algorithms(self.training.deterministic)

    def fit(self) -> None:
        """Step until done or stopped; an epoch's end is worked off between two steps."""
        run = self.run
        run.progress.reopen_epoch()
        if memory_check.due(run):
            memory_check.check(run, self._passes)
        if collectives.is_rank_zero() and not run.complete:
            with heartbeat.busy():
                self.speed.calibrate()
        collectives.barrier()  # not in a gradient's all-reduce, which has no more time than the watch
        while not run.stop_agreed():
            if run.epoch_due:
                self._end_epoch()
                continue
            if run.complete:
                break
            losses = self.step()
            if run.complete or any(run.step % steps == 0 for steps in run.cadences):
                self.flush()
            run.hooks.medgen_step_end(run=run, losses=losses)
        self.flush()

    def step(self) -> dict[str, Tensor]:
        """One optimizer step of every turn. Returns means over the batch by name, on the device."""
        run, size = self.run, self.training.batch_size
        heartbeat.mark(step=run.step)
        with self.speed.waiting():
            batch = run.to_device(run.train.at(run.samples, size, self.rows))
        rank = collectives.rank()
        seeds.seed_globals(run.recipe.run.seed, "dropout", run.step, *([rank] if rank else []))
        before: list[TurnOutput | None] = [None] * self.training.accumulate
        record: dict[str, Tensor] = {}
        for name, turn in run.turns.items():
            before = self._backward(name, turn, batch, before, record)
            self._update(name, turn, record)
        run.progress.advance(size)
        self.readings.add(record)
        self.speed.step_done()
        return record

    def _settings(self) -> TrainingSettings:
        training = self.run.recipe.training
        return attrs.evolve(training, batch_size=self.batch_size) if self.batch_size else training

    def _compile(self) -> None:
        """Compile the turns, if the recipe says so and it works."""

        def compiled() -> None:
            self.forward = {name: torch.compile(turn) for name, turn in self.run.turns.items()}

        def tried() -> None:
            compiled()
            self._passes()

        def eager() -> None:
            self.forward = before
            self._passes()

        before = self.forward
        works = compiling.settle(self.run, tried, eager)
        self.training = self._settings()
        if not works:
            self.forward = before
        elif self.forward is before:
            compiled()

    def _passes(self) -> None:
        """What a step computes, but for its updates."""
        run = self.run
        batch = run.to_device(run.train.at(run.samples, self.training.batch_size, self.rows))
        before: list[TurnOutput | None] = [None] * self.training.accumulate
        for name, turn in run.turns.items():
            before = self._backward(name, turn, batch, before, {})

    def flush(self) -> None:
        """Read what has been measured since the last time from the device, and show it. Collective."""
        self.readings.flush()

    def _backward(
        self,
        name: str,
        turn: Turn,
        batch: Batch,
        before: list[TurnOutput | None],
        record: dict[str, Tensor],
    ) -> list[TurnOutput | None]:
        draws, parts, forward = self._draws(name, turn, batch), len(before), self.forward[name]
        size = self.training.batch_size // collectives.size()
        after: list[TurnOutput | None] = []
        for part, earlier in enumerate(before):
            rows = slice(part * size // parts, (part + 1) * size // parts)
            with ddp.no_sync(forward) if part + 1 < parts else nullcontext():
                with autocast(self.run.device, self.training.precision):
                    result = forward(cut(batch, rows), cut(draws, rows), earlier)
                self._descend(name, result, record)
            after.append(detach(result))
        return after

    def _draws(self, name: str, turn: Turn, batch: Batch) -> Any:
        """As for the whole batch, whatever this rank has of it."""
        turn.step = self.run.step
        if self.rows is None:
            return turn.draw(self._stream(name), batch)
        count = self.training.batch_size
        whole = batch.map(lambda each: each[:1].expand(count, *each.shape[1:]))
        return cut(
            turn.draw(self._stream(name), whole), torch.from_numpy(self.rows).to(self.run.device)
        )

    def _descend(self, name: str, result: TurnOutput, record: dict[str, Tensor]) -> None:
        """Add the gradients of this part of the batch, and note its share of the means over the
        batch.

        `loss/train` is what the first turn minimises; the others' losses have names of their own
        and no weights.
        """
        means = {
            loss: each.sum() / self.training.batch_size for loss, each in result.losses.items()
        }
        total = torch.stack(
            [self.weights.get(loss, 1.0) * mean for loss, mean in means.items()]
        ).sum()
        with heartbeat.waiting():
            ddp.scale_loss(total).backward()  # type: ignore[no-untyped-call]
        if name == next(iter(self.run.turns)):
            means = {"train": total, **means}
        for loss, mean in means.items():
            record[f"loss/{loss}"] = record.get(f"loss/{loss}", 0.0) + mean.detach()

    def _update(self, name: str, turn: Turn, record: dict[str, Tensor]) -> None:
        run = self.run
        optimizer = run.optimizers[name]
        limit = self.training.clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(list(turn.parameters()), limit, foreach=True)
        bad = (~torch.isfinite(norm)).float()
        self.readings.note_skip(bad)
        # fused AdamW reads this flag on the device and leaves weights, moments and counter alone if it is set
        optimizer.found_inf = bad  # type: ignore[attr-defined]
        optimizer.param_groups[0]["lr"] = self.rate(run.step) * turn.rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        record["grad_norm" if len(run.turns) == 1 else f"grad_norm/{name}"] = norm.detach()

    def _stream(self, name: str) -> torch.Generator:
        return seeds.stream(
            self.run.recipe.run.seed, f"draws/{name}", self.run.step, device=self.run.device
        )

    def _end_epoch(self) -> None:
        run, every = self.run, self.training.validate_every
        metrics: dict[str, float] = {}
        self.flush()
        with heartbeat.busy():
            if every and ((run.epochs_ended + 1) % every == 0 or run.complete):
                try:
                    metrics = validate(run)
                except StopFit:
                    return
            run.progress.end_epoch()
            if metrics:
                run.log(metrics)
            run.hooks.medgen_epoch_end(run=run, metrics=metrics)
        self.speed.restart()
