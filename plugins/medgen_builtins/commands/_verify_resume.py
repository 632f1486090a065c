"""Train a recipe twice, once with a stop in the middle, and compare everything."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any

import click
import torch

from medgen.cli.main import guarded
from medgen.config.recipe import load
from medgen.errors import PluginError, Problem, RankError, StoppedError, of_system
from medgen.run import checkpoint
from medgen.system.console import say
from medgen.system.signals import asked_to_stop
from medgen.training import session

START = "spawn"
"""Start method of processes that share nothing: state in a plugin's module must not help."""
WAIT = 0.1
"""Seconds between two looks for a signal that has to be passed on."""
CODES = frozenset({*range(13), 75, 130})
"""Exit codes of medgen; a process that has one of them has said why it ended."""
CLOCKS = ("seconds", "journal", "versions")


def verify(recipe: str, overrides: Sequence[str], layers: Sequence[str], steps: int) -> None:
    """Raise NotIdenticalError if a run of `steps` steps that is resumed for as many differs from
    one without a stop.
    """
    with tempfile.TemporaryDirectory() as temporary:
        whole, parts = Path(temporary, "whole"), Path(temporary, "parts")
        work: tuple[tuple[str, Callable[..., None], tuple[Any, ...]], ...] = (
            (
                f"{2 * steps} steps without a stop",
                _start,
                (recipe, overrides, layers, whole, steps, None),
            ),
            (f"{steps} steps and a stop", _start, (recipe, overrides, layers, parts, steps, steps)),
            (f"the other {steps} steps", _resume, (parts,)),
        )
        for number, (what, function, given) in enumerate(work, 1):
            say(f"{number}/3  {what}")
            _in_a_process(f"{number}/3, {what}", function, given)
        wrong = differences(whole, parts)
    if wrong:
        more = f" ({len(wrong)} differ in all)" if len(wrong) > 1 else ""
        raise NotIdenticalError(
            Problem(
                recipe,
                f"resumed after {steps} of {2 * steps} steps, {wrong[0]}{more}",
                "Keep all state in state_dict and draw only from medgen.seeds; "
                "on a GPU try training.deterministic=true",
            )
        )
    say(f"bit-identical: every tensor and loss of {steps} + {steps} steps and of {2 * steps}")


class NotIdenticalError(PluginError):
    """A resumed run differs from the uninterrupted run: some state is not saved."""


def differences(one: Path, two: Path) -> list[str]:
    """List the differences of two runs or their child runs, in file order, but for times."""
    names = {
        path.parent.relative_to(folder)
        for folder in (one, two)
        for path in folder.rglob("latest.pt")
    }
    found = (
        (name, each) for name in sorted(names) for each in _differences(one / name, two / name)
    )
    return [each if name == Path() else f"{name}: {each}" for name, each in found]


def _differences(one: Path, two: Path) -> list[str]:
    first, second = (dict(_leaves(checkpoint.load(folder / "latest.pt"))) for folder in (one, two))
    lines = itertools.zip_longest(*(_losses(folder) for folder in (one, two)))
    found = [_difference(name, first.get(name), second.get(name)) for name in {**first, **second}]
    found += [f"loss of line {n} differs" for n, pair in enumerate(lines, 1) if pair[0] != pair[1]]
    return [each for each in found if each]


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, (Mapping, list)):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            if f"{prefix}{key}" not in (*CLOCKS, "recipe"):
                yield from _leaves(inner, f"{prefix}{key}/")
    else:
        yield prefix.rstrip("/"), value


def _difference(name: str, one: Any, two: Any) -> str:
    if not (isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor)):
        return (
            "" if type(one) is type(two) and one == two else f"{name} differs: {one!r} and {two!r}"
        )
    if one.shape != two.shape or one.dtype != two.dtype:
        return f"{name} differs in shape or type"
    return (
        ""
        if torch.equal(one, two)
        else f"{name} differs by up to {(one - two).abs().max().item():.1e}"
    )


def _losses(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: each for key, each in line.items() if key in ("step", "epoch") or "loss" in key}
        for line in lines
    ]


def _in_a_process(what: str, function: Callable[..., None], given: tuple[Any, ...]) -> None:
    """Run in a process and wait. Passes signals on; its exit code becomes this process's."""
    process = multiprocessing.get_context(START).Process(target=function, args=given)  # type: ignore[attr-defined]
    with asked_to_stop("the same command") as stop:
        try:
            process.start()
        except OSError as error:
            raise of_system(error, "verify-resume") or _not_started(
                what, error.strerror or str(error)
            ) from error
        passed = False
        while process.is_alive():
            process.join(WAIT)
            if stop.reason and not passed:
                passed = True
                # of whatever kind it was: our own exit code tells
                os.kill(process.pid, signal.SIGTERM)
    if stop.reason:
        said = Problem("verify-resume", f"stopped by {stop.reason}", "Give the same command again")
        raise StoppedError(said, exit_code=stop.exit_code)
    _require_done(what, process.exitcode)


def _require_done(what: str, code: int) -> None:
    """Raise what a process's exit code says."""
    if code == StoppedError().exit_code:
        raise StoppedError(Problem("verify-resume", "stopped", "Give the same command again"))
    if code < 0:
        name = signal.Signals(-code).name
        raise RankError(
            Problem(
                "verify-resume",
                f"the process of {what} was killed by {name}",
                "See that it has memory enough",
            )
        )
    if code not in CODES:  # of Python or the system, who have not always a word for it
        raise _not_started(
            what, f"{os.fsdecode(get_executable() or 'Python')} ended with code {code}"
        )
    if code:
        raise click.exceptions.Exit(code)


def _not_started(what: str, reason: str) -> RankError:
    said = f"verify-resume: the process of {what} could not be started or did not come to work ({reason})"
    return RankError(
        Problem(
            "",
            said,
            "See that Python can be run and processes are left (ulimit -u), then try again",
        )
    )


def _start(
    recipe: str,
    overrides: Sequence[str],
    layers: Sequence[str],
    folder: Path,
    steps: int,
    until: int | None,
) -> None:
    # an epoch ends between the stop and the end, so that validation takes part, on one batch
    length = (
        f"training.steps={2 * steps}",
        "training.epochs=0",
        f"training.epoch_steps={steps + 1}",
    )
    short = (*length, "training.val_batches=1", "training.time_limit=0", f"run.dir={folder}")

    def work() -> None:
        session.start(load(recipe, [*overrides, *short], layers), until)

    _guarded(work)


def _resume(folder: Path) -> None:
    def work() -> None:
        session.resume(folder)

    _guarded(work)


def _guarded(work: Callable[[], None]) -> None:
    """Suppress the message of a stop, which names a temporary folder; the parent reports the stop."""

    def quiet() -> int:
        try:
            work()
        except StoppedError as error:
            return error.exit_code
        return 0

    sys.exit(guarded(quiet, "--debug" in sys.argv))
