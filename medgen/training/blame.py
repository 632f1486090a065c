"""Find the plugin that ended a fit: a callback in a hook, or another of the recipe."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from traceback import walk_tb
from types import CodeType

from medgen.api.recipe import Recipe
from medgen.api.values import SEVERAL
from medgen.config.blame import described
from medgen.errors import MedgenError, PluginError, Problem, continue_command, is_of_machine
from medgen.ranks import collectives, process_group
from medgen.run.run import TrainingRun

DEVICE = re.compile("CUDA|cuDNN|HIP")
"""In an error of the GPU, which shows in whatever code runs at that moment."""


def plugin_error(run: TrainingRun, error: Exception) -> PluginError | None:
    """Return the line that names the plugin at fault; after a callback's error the step is saved."""
    known = (
        isinstance(error, MedgenError)
        or is_of_machine(error)
        or process_group.is_lost_peer_error(error)
    )
    if known:
        return None
    what = f"failed with {described(error)}, at step {run.step}"
    if (blamed := _callback_at_fault(run, error)) is not None:
        saved = collectives.size() == 1  # else all ranks would have to be here
        if saved:
            run.save()
        what += "; that step is saved" * saved
        return PluginError(
            Problem(f"callbacks.{blamed}", what, "Repair it, or go on without it in a new run")
        )
    if (blamed := _part_at_fault(run.recipe, error)) is not None:
        return PluginError(
            Problem(blamed, what, "Repair it, then continue", command=continue_command(run.dir))
        )
    return None


def _callback_at_fault(run: TrainingRun, error: BaseException) -> str | None:
    """Return a traceback's innermost callback and its outermost hook: `previews: medgen_validate`."""
    hooks = {code: (name, hook) for name, code, hook in _hooks(run)}
    calls = [
        hooks[frame.f_code] for frame, _ in walk_tb(error.__traceback__) if frame.f_code in hooks
    ]
    if not calls:
        return None
    owner = calls[-1][0]
    return f"{owner}: {next(hook for name, hook in calls if name == owner)}"


def _hooks(run: TrainingRun) -> Iterator[tuple[str, CodeType, str]]:
    """Yield the hooks of all callbacks: the callback's name, the code that runs, the hook's name."""
    for name, callback in run.callbacks.items():
        for caller in run.plugins.get_hookcallers(callback) or ():
            own = [each.function for each in caller.get_hookimpls() if each.plugin is callback]
            yield from ((name, inspect.unwrap(function).__code__, caller.name) for function in own)


def _part_at_fault(recipe: Recipe, error: BaseException) -> str | None:
    """Return the table whose plugin has the innermost frame of its own in the traceback."""
    if isinstance(error, RuntimeError) and DEVICE.search(str(error)):
        return None
    modules, packages = dict[str, list[str]](), dict[str, list[str]]()
    for where, home in _homes(recipe):
        modules.setdefault(home, []).append(where)
        packages.setdefault(home.split(".")[0], []).append(where)
    for frame, _ in reversed(list(walk_tb(error.__traceback__))):
        name = str(frame.f_globals.get("__name__"))
        if name in modules:
            return " or ".join(modules[name])
        if len(only := packages.get(name.split(".")[0], [])) == 1:
            return only[0]
    return None


def _homes(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield tables of a recipe, and the modules that their plugins are in."""
    for kind, name in recipe.names.items():
        yield f"{kind}.{name}", type(getattr(recipe, kind)).__module__
    for kind in SEVERAL:
        for name, each in getattr(recipe, kind).items():
            yield f"{kind}.{name}", type(each).__module__
