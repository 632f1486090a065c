"""Train the phases of a progressive run in order."""

from __future__ import annotations

from pathlib import Path

import torch

from medgen import Callback, PhasedSettings, Recipe, hookimpl
from medgen.ranks import collectives
from medgen.run import checkpoint, folder
from medgen.run.run import TrainingRun
from medgen.run.weights import own_state
from medgen.system.console import say
from medgen.training.phases import PhasedRun
from medgen_builtins.callbacks._plateau import Plateau, Rule

STATE, FINAL = "progressive_state.pt", "final_model.pt"


class Progressive(Callback):
    """Trains the phases in order, and keeps which are done."""

    def __init__(self, settings: PhasedSettings, rule: Rule, final_epochs: int):
        self.settings, self.rule, self.final_epochs = settings, rule, final_epochs

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
        final = name == self._names(run)[-1]
        plateau = None if final else Plateau(self.rule)
        child, new = run.child(recipe, name, {"plateau": plateau} if plateau else None)
        if new and done:
            carry_over(child, run.dir / done[-1])
        if final:
            child.progress.limit_epochs(self.final_epochs)
        say(
            f"{name}  batches of {recipe.training.batch_size}, at most {child.total_steps} steps, from {child.step}"
        )
        run.fit(child)
        fired = plateau is not None and plateau.fired
        if not fired and (not child.complete or child.epoch_due):
            run.stop(child.stopping or "")
            return False
        say(
            f"{name}  done at step {child.step}, epoch {child.epochs_ended}" + ": a plateau" * fired
        )
        done.append(name)
        self._save(run, done)
        return not run.stopping or final

    def _names(self, run: PhasedRun) -> list[str]:
        """Return folders of the phases, in order."""
        return list(self.settings.phases(run.recipe))

    def _done(self, run: PhasedRun) -> list[str]:
        if collectives.on_rank_zero((run.dir / STATE).exists):
            state = checkpoint.load(run.dir / STATE)
            return [each["folder"] for each in state["phases"] if each["done"]]
        self._save(run, [])
        return []

    def _save(self, run: PhasedRun, done: list[str]) -> None:
        phases = [{"folder": name, "done": name in done} for name in self._names(run)]
        if collectives.is_rank_zero():
            checkpoint.save({"phases": phases}, run.dir / STATE)
        collectives.barrier()

    def _finish(self, run: PhasedRun, done: list[str]) -> None:
        """Copy the last phase's newest checkpoint to `final_model.pt`."""
        if collectives.is_rank_zero() and (run.dir / FINAL).exists():
            say(f"already complete ({len(done)} of {len(done)} phases)")
        elif collectives.is_rank_zero():
            checkpoint.save(folder.latest_state(run.dir / done[-1])[0], run.dir / FINAL)
        run.finish()


def carry_over(child: TrainingRun, before: Path) -> None:
    """Begin with the weights of the phase before, averaged ones if it has them; and its
    discriminator, if it fits.
    """
    state, source = folder.latest_state(before)
    child.start_from(checkpoint.load_weights(source), source)
    for name, turn in child.turns.items():
        new, old = own_state(turn, child.network), state["turns"][name]
        if {key: each.shape for key, each in new.items()} != {
            key: each.shape for key, each in old.items()
        }:
            say(f"{child.dir.name}  the {name} begins anew: at this size it has another shape")
            continue
        with torch.no_grad():
            for key, each in new.items():
                each.copy_(old[key])
