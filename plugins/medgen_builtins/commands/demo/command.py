"""What `medgen data demo` does."""

from __future__ import annotations

from pathlib import Path

from medgen.system import streams
from medgen.system.console import progress, say
from medgen_builtins.commands.demo.cohort import make_demo


def write(out: Path, patients: int, seed: int, randomised: bool, tissue: bool) -> None:
    """Write made-up patients, and say where they are."""
    streams.only_log()
    with progress("demo patients", patients) as bar:
        make_demo(out, patients, seed, advance=bar.advance, randomised=randomised, tissue=tissue)
    say(str(out))
