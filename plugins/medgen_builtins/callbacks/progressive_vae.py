"""Progressive growing (Karras et al. 2018) by whole phases: small images first, then larger ones from those weights."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from medgen import Callback, PhasedSettings, Problem, between, field, ge, gt, hookimpl, settings
from medgen.api.tables import LARGEST_SIZE

if TYPE_CHECKING:
    from pathlib import Path

    from medgen.api.recipe import Recipe
    from medgen.run.run import TrainingRun
    from medgen.training.phases import PhasedRun

medgen_api = 1
KEY = "callbacks.progressive_vae"
STATE, FINAL = "progressive_state.pt", "final_model.pt"


@settings
class ProgressiveVae(PhasedSettings):
    """Trains at one image size after the other, each phase a run of its own in `phase_64/` and the like.

    A phase ends on a plateau, the last one after `final_epochs`; none takes more than `training.steps` or `epochs`.
    Weights are carried over, optimizers and averages begin anew. `data.image_size` and `training.batch_size` are those
    of each phase. Epochs are counted here where they were validated, so all of them with `training.validate_every=1`.
    """

    sizes: tuple[int, ...] = field(
        (64, 128, 256), help="px, image size of each phase, rising", check=between(8, LARGEST_SIZE)
    )
    batch_sizes: tuple[int, ...] = field((32, 16, 8), help="training.batch_size of each phase", check=between(1, 10**6))
    metric: str = field("loss/val", help="metric that falls with progress; a leading minus for psnr and other gains")
    window: int = field(10, help="epochs that the metric is averaged over", check=between(1, 10**6))
    min_improvement: float = field(0.5, help="percent below the best mean that count as progress", check=ge(0))
    min_epochs: int = field(20, help="epochs before patience starts", check=ge(1))
    patience: int = field(10, help="consecutive epochs without progress that end a phase", check=ge(1))
    final_epochs: int = field(100, help="epochs of the last phase", check=gt(0))

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        wrong = list(self._check_lists())
        yield from wrong
        if "checkpoints" not in recipe.callbacks:
            what = "got no [callbacks.checkpoints], expected one, as phases are joined by what it saves"
            yield Problem(KEY, what, "Add it")
        if not recipe.training.validate_every:
            what = f"got 0, expected 1 or more, as {KEY} looks for a plateau"
            yield Problem("training.validate_every", what, "Raise it")
        if not wrong:
            yield from self._check_phases(recipe)

    def phases(self, recipe: Recipe) -> dict[str, Recipe]:
        """Return the recipe of each phase by its folder's name: its own size and batch, and without this callback."""
        others = {name: each for name, each in recipe.callbacks.items() if each is not self}
        found = {}
        for index, (size, batch_size) in enumerate(zip(self.sizes, self.batch_sizes, strict=True)):
            training = attrs.evolve(recipe.training, batch_size=batch_size)
            if index:
                training = attrs.evolve(training, init_from=None)
            spacing = recipe.data.spacing * recipe.data.image_size / size  # the same square in every phase
            data = attrs.evolve(recipe.data, image_size=size, spacing=spacing)
            found[f"phase_{size}"] = attrs.evolve(recipe, data=data, training=training, callbacks=others)
        return found

    def build(self) -> Progressive:
        return Progressive(self)

    def _check_lists(self) -> Iterator[Problem]:
        if not self.sizes:
            yield Problem(f"{KEY}.sizes", "got [], expected at least one", "Give the image size of each phase")
            return
        if len(self.batch_sizes) != len(self.sizes):
            expected = f"{len(self.sizes)}, one per size of {KEY}.sizes"
            what = f"got {len(self.batch_sizes)} values, expected {expected}"
            yield Problem(f"{KEY}.batch_sizes", what, "Give one per size")
        if list(self.sizes) != sorted(set(self.sizes)):
            yield Problem(f"{KEY}.sizes", f"got {list(self.sizes)}, expected rising sizes", "Sort them")

    def _check_phases(self, recipe: Recipe) -> Iterator[Problem]:
        """Find what is wrong with a phase's recipe because of its size or batch size, and not anyhow; each key once."""
        from medgen.config.checks import mistakes

        known = {str(problem.where) for problem in mistakes(recipe)}
        for index, (name, phase) in enumerate(self.phases(recipe).items()):
            own = {"data.image_size": f"{KEY}.sizes[{index}]", "training.batch_size": f"{KEY}.batch_sizes[{index}]"}
            for problem in mistakes(phase):
                if (key := str(problem.where)) not in known:
                    known.add(key)
                    yield problem._replace(where=own.get(key, key), what=f"{problem.what}, in {name} of {KEY}")


class Plateau(Callback):
    """Notices when a curve no longer falls; a callback of a phase, so that its state is in the phase's checkpoints.

    The mean is that of the last `window` values, or of as many as there are. Up to the epoch `min_epochs`, the best
    mean is simply the last. From then on an epoch is one of progress if its mean is `min_improvement` percent below
    the best, which it then becomes. After `patience` epochs in a row without progress it fires: for a flat curve at
    the epoch `min_epochs + patience`. A value that is not finite is no progress and is left out of the mean.
    """

    def __init__(self, settings: ProgressiveVae):
        self.settings = settings
        self.recent: deque[float] = deque(maxlen=settings.window)
        self.best: float | None = None
        self.epochs = self.waited = 0

    @property
    def fired(self) -> bool:
        """True once the curve has reached its plateau."""
        return self.waited >= self.settings.patience

    def add(self, value: float) -> bool:
        """Take the next epoch's value. Returns `fired`."""
        self.epochs += 1
        progress = self._progress(value) if math.isfinite(value) else False
        self.waited = 0 if progress or self.epochs <= self.settings.min_epochs else self.waited + 1
        return self.fired

    def _progress(self, value: float) -> bool:
        self.recent.append(value)
        mean = math.fsum(self.recent) / len(self.recent)
        if self.best is None or self.epochs <= self.settings.min_epochs:
            self.best = mean
            return True
        better = mean < self.best - abs(self.best) * self.settings.min_improvement / 100
        self.best = mean if better else self.best
        return better

    @hookimpl
    def medgen_run_start(self, run: TrainingRun) -> None:
        from medgen.errors import DataError, Problem

        if run.val.size == 0:
            raise DataError(
                Problem(KEY, "no slices are held out, so no plateau can be seen", "Raise data.val_fraction")
            )
        if self.fired:
            run.stop("a plateau")

    @hookimpl
    def medgen_epoch_end(self, run: TrainingRun, metrics: Mapping[str, float]) -> None:
        if metrics and self.add(self._value(metrics)):
            run.stop("a plateau")

    def state_dict(self) -> dict[str, Any]:
        return {"recent": list(self.recent), "best": self.best, "epochs": self.epochs, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.recent.extend(state["recent"])
        self.best, self.epochs, self.waited = state["best"], state["epochs"], state["waited"]

    def _value(self, metrics: Mapping[str, float]) -> float:
        from medgen.errors import Problem, RecipeError

        name = self.settings.metric
        if name.lstrip("-") not in metrics:
            raise RecipeError(
                Problem(f"{KEY}.metric", f"got {name!r}, expected one of {', '.join(metrics)}", "Choose one")
            )
        return -metrics[name[1:]] if name.startswith("-") else metrics[name]


class Progressive(Callback):
    """Trains the phases in order, and keeps which are done."""

    def __init__(self, settings: ProgressiveVae):
        self.settings = settings

    @hookimpl
    def medgen_fit(self, run: PhasedRun) -> bool:
        phases = self.settings.phases(run.recipe)
        done = self._done(run)
        for name, recipe in phases.items():
            if name not in done and not self._phase(run, name, recipe, done):
                return True
        self._finish(run, done)
        return True

    def _phase(self, run: PhasedRun, name: str, recipe: Recipe, done: list[str]) -> bool:
        """Train a phase and record it. Returns False if it was stopped."""
        from medgen.system.console import say

        final = recipe.data.image_size == self.settings.sizes[-1]
        plateau = None if final else Plateau(self.settings)
        child, new = run.child(recipe, name, {"plateau": plateau} if plateau else None)
        if new and done:
            carry_over(child, run.dir / done[-1])
        if final:
            child.progress.limit_epochs(self.settings.final_epochs)
        say(f"{name}  batches of {recipe.training.batch_size}, at most {child.total_steps} steps, from {child.step}")
        run.fit(child)
        fired = plateau is not None and plateau.fired
        if not fired and (not child.complete or child.epoch_due):
            run.stop(child.stopping or "")
            return False
        say(f"{name}  done at step {child.step}, epoch {child.epochs_ended}" + ": a plateau" * fired)
        done.append(name)
        self._save(run, done)
        return not run.stopping or name == f"phase_{self.settings.sizes[-1]}"

    def _done(self, run: PhasedRun) -> list[str]:
        from medgen.ranks import collectives
        from medgen.run import checkpoint

        if collectives.on_rank_zero((run.dir / STATE).exists):
            state = checkpoint.load(run.dir / STATE)
            return [each["folder"] for each in state["phases"] if each["done"]]
        self._save(run, [])
        return []

    def _save(self, run: PhasedRun, done: list[str]) -> None:
        from medgen.ranks import collectives
        from medgen.run import checkpoint

        phases = [{"folder": name, "done": name in done} for name in self.settings.phases(run.recipe)]
        if collectives.is_rank_zero():
            checkpoint.save({"phases": phases}, run.dir / STATE)
        collectives.barrier()

    def _finish(self, run: PhasedRun, done: list[str]) -> None:
        """Copy the last phase's newest checkpoint to `final_model.pt`."""
        from medgen.ranks import collectives
        from medgen.run import checkpoint, folder
        from medgen.system.console import say

        if collectives.is_rank_zero() and (run.dir / FINAL).exists():
            say(f"already complete ({len(done)} of {len(done)} phases)")
        elif collectives.is_rank_zero():
            checkpoint.save(folder.latest_state(run.dir / done[-1])[0], run.dir / FINAL)
        run.finish()


def carry_over(child: TrainingRun, before: Path) -> None:
    """Begin with the weights of the phase before, averaged ones if it has them; and its discriminator, if it fits."""
    import torch

    from medgen.run import checkpoint, folder
    from medgen.run.weights import own_state
    from medgen.system.console import say

    state, source = folder.latest_state(before)
    child.start_from(checkpoint.load_weights(source), source)
    for name, turn in child.turns.items():
        new, old = own_state(turn, child.network), state["turns"][name]
        if {key: each.shape for key, each in new.items()} != {key: each.shape for key, each in old.items()}:
            say(f"{child.dir.name}  the {name} begins anew: at this size it has another shape")
            continue
        with torch.no_grad():
            for key, each in new.items():
                each.copy_(old[key])


@hookimpl
def medgen_callbacks() -> dict[str, type]:
    return {"progressive_vae": ProgressiveVae}
