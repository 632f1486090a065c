"""`medgen audit`, which `medgen generate` ends with."""

from __future__ import annotations

from pathlib import Path

import click

from medgen.cli.options import FOLDER, LIMIT


@click.command()
@click.argument("pairs", type=FOLDER)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--against",
    required=True,
    metavar="DATA",
    help="Recipe, run, checkpoint or folder of training scans.",
)
@click.option(
    "--limit",
    type=click.FloatRange(0, 1),
    default=LIMIT,
    show_default=True,
    help="Share of copies; exit 11 beyond it.",
)
@click.option("--report", type=FOLDER, metavar="FILE", help="JSON; without it, PAIRS/audit.json.")
def audit(
    pairs: Path, overrides: tuple[str, ...], against: str, limit: float, report: Path | None
) -> None:
    """Find copies of training data among PAIRS and move them to PAIRS/set_aside.

    The nearest training slice of each pair, flipped, turned, zoomed or shifted, and the nearest
    lesion; what is more alike than different persons of DATA are is a copy.
    PAIRS/set_aside/audit.png shows the worst beside real slices.
    """
    from medgen.cli import _audit

    _audit.audit(pairs, overrides, against, limit, report)
