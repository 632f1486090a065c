"""torch.compile, tried before the first step: a compiler that is missing or broken costs a line,
and not the run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from medgen.errors import MedgenError, Problem, RecipeError, StoppedError
from medgen.ranks import collectives, heartbeat
from medgen.run import auto_settings
from medgen.run.run import TrainingRun
from medgen.system import torch_private
from medgen.system.console import warn
from medgen.system.signals import exit_code_for
from medgen.training import memory_check

CACHE = "Name a folder that can be written, and run from, in TORCHINDUCTOR_CACHE_DIR"
BROKEN = "Repair the C++ compiler (g++) or its libraries"
TORN = r"file too short|file format not recognized|[Ii]nvalid ELF|not an ELF|wrong ELF|undefined symbol|file truncated"
"""What the system says of a library that is there in part."""
NEEDED = {
    r"Python\.h": "Install Python's headers (python3-dev)",
    r"No working C\+\+ compiler|InvalidCxxCompiler": "Install a C++ compiler that works (g++)",
    r"CppCompileError": BROKEN,
    r"[Tt]riton|C compiler": "Install triton and the C compiler that it needs (gcc)",
    r"Errno|failed to map segment|No space left|Read-only file system": CACHE,
}
"""What a message of the compiler asks for, by a pattern in it; the first that is found counts."""
SAYS = re.compile(rf"{TORN}|error:|cannot find|Errno|No working|denied|No space left|failed to map")
"""What is in the line of a long message that says what is wrong."""
TYPE = re.compile(r"^(?:\w+\.)*(\w+): ")
LONGEST = 200
STOPPED = "stopped"
"""In place of advice: it was a signal, whose name is what is wrong."""


class Fault(NamedTuple):
    """Why something compiled does not run, and what to do, each without a full stop."""

    what: str
    advice: str


def settle(run: TrainingRun, compiled: Callable[[], None], eager: Callable[[], None]) -> bool:
    """Return whether to compile, as tried once a process. Collective. Raises RecipeError if it
    fails and has to work.

    compiled, eager: compute what a step does, but for its updates.
    """
    wanted = run.recipe.training.compile
    if run.compiles or not wanted:
        return run.compiles
    fault = _fault(run, compiled if collectives.size() == 1 else lambda: _probe(run.device))
    if fault and fault.advice == STOPPED:
        what = f"{run.dir}: stopped by {fault.what} while it was compiled"
        raise StoppedError(
            Problem("", what, "Give the same command again"), exit_code=exit_code_for(fault.what)
        )
    run.settle_compile(fault is None)
    if fault is None:
        return True
    if wanted != auto_settings.AUTO:
        with heartbeat.busy(), memory_check.untouched(run):
            eager()  # if this fails too, that is the fault
        raise error(fault, run)
    warn(
        f"training.compile: {fault.what}, so this run is not compiled. {fault.advice} before the next one."
    )
    return False


class _Trial:
    underway = False


def is_underway() -> bool:
    """Return whether the compiler is being tried, which takes minutes and has nothing to lose."""
    return _Trial.underway


@contextmanager
def _trying() -> Iterator[None]:
    _Trial.underway = True
    try:
        yield
    finally:
        _Trial.underway = False


def _fault(run: TrainingRun, work: Callable[[], None]) -> Fault | None:
    """Return what is wrong, as the first rank has it for which something is."""
    mine = None
    with heartbeat.busy(), memory_check.untouched(run):
        try:
            with _trying():
                work()
        except StoppedError:  # of a signal; all ranks end together
            mine = Fault(str(run.stopping), STOPPED)
        except (MedgenError, torch.OutOfMemoryError):
            raise
        except (
            Exception
        ) as caught:  # the compiler runs other programs, and lets through whatever happens there
            # a signal may have ended the compiler, too, which then says nothing of the machine
            mine = Fault(run.stopping, STOPPED) if run.stopping else read(caught)
    told = [collectives.broadcast_object(mine, source) for source in range(collectives.size())]
    return next((Fault(*each) for each in told if each), None)


def _probe(device: torch.device) -> None:
    """Compile something small, forward and backward, that no cache has.

    Ranks try no whole step: DDP cuts what it compiles into parts of its own, and a rank that fails
    would leave the others in the midst of a sum.
    """
    once = time.time_ns() % 1_000_003 / 1e6

    def work(x: torch.Tensor) -> torch.Tensor:
        return (x * once).sin().sum()

    torch.compile(work)(torch.ones(4096, device=device, requires_grad=True)).backward()  # type: ignore[no-untyped-call]


def error(fault: Fault, run: TrainingRun) -> RecipeError:
    """Return the one line for a run that cannot be compiled but has to be."""
    began = f", and {run.dir} has been compiled up to step {run.step}" if run.step else ""
    return RecipeError(
        Problem(
            "training.compile",
            f"{fault.what}{began}",
            f"{fault.advice}, or use training.compile=false",
        )
    )


def is_failure(caught: BaseException, run: TrainingRun) -> bool:
    """Return whether an error is one of torch's compiler, which may also compile during a run."""
    return run.compiles and isinstance(caught, torch_private.compiler_errors())


def read(caught: BaseException) -> Fault:
    """Return what an error of the compiler, of many lines, says in one, and what it asks for."""
    text = f"{type(caught).__name__}: {caught}"
    lines = [line.strip() for line in str(caught).splitlines() if line.strip()] or [text]
    said = next(
        (line for line in lines if SAYS.search(line) and not line.startswith("CppCompileError")),
        lines[0],
    )
    said = TYPE.sub("", said).rstrip(". ") or type(caught).__name__
    said = said if len(said) <= LONGEST else said[: LONGEST - 1] + "…"
    advice = next(
        (each for pattern, each in NEEDED.items() if re.search(pattern, text)), "Report it to torch"
    )
    return Fault(f"torch's compiler failed ({said})", _on_cache(lines, advice))


def _on_cache(lines: list[str], advice: str) -> str:
    """Advise on a file in the cache that a killed process or a full disk left in part, and that is
    never made again.

    A missing library for the processor's features shows only as errors in code made before.
    """
    cache = torch_private.compiler_cache()
    if any(
        re.search(TORN, line) and cache in line for line in lines
    ):  # else it is a library of the compiler's own
        return f"Delete the compiler's cache, the folder {cache},"
    made = any(line.startswith(cache) and " error: " in line for line in lines)
    return (
        f"{advice}, or delete its cache, the folder {cache},"
        if made and advice == BROKEN
        else advice
    )
