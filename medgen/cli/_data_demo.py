"""What `medgen data demo` does."""

from __future__ import annotations

from pathlib import Path

from medgen.cli.options import say_result
from medgen.data.demo.cohort import make_demo
from medgen.system import streams
from medgen.system.console import progress


def make(out: Path, patients: int, seed: int) -> None:
    """Write made-up patients."""
    streams.only_log()
    with progress("demo patients", patients) as bar:
        make_demo(out, patients, seed, advance=bar.advance)
    say_result(out)
