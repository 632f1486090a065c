"""`medgen audit`, which `medgen generate` ends with."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medgen.cli import options
from medgen.cli.options import FOLDER, say_result
from medgen.errors import PrivacyError, Problem, RecipeError, StorageError, reason
from medgen.system import streams

if TYPE_CHECKING:
    from medgen.evaluation.copies import Judge
    from medgen.evaluation.samples import Samples
    from medgen.generation.set_aside import Audited
    from medgen.system.locks import Locks

LIMIT = 0.01
"""Share of copies that is tolerated: as many may be false alarms."""
WORST = 8
"""Pairs in the table and the picture."""


@click.command()
@click.argument("pairs", type=FOLDER)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--against", required=True, metavar="DATA", help="Recipe, run, checkpoint or folder of training scans.")
@click.option(
    "--limit", type=click.FloatRange(0, 1), default=LIMIT, show_default=True, help="Share of copies; exit 11 beyond it."
)
@click.option("--report", type=FOLDER, metavar="FILE", help="JSON; without it, PAIRS/audit.json.")
def audit(pairs: Path, overrides: tuple[str, ...], against: str, limit: float, report: Path | None) -> None:
    """Find copies of training data among PAIRS and move them to PAIRS/set_aside.

    The nearest training slice of each pair, flipped, turned, zoomed or shifted, and the nearest lesion; what is more
    alike than different persons of DATA are is a copy. PAIRS/set_aside/audit.png shows the worst beside real slices.
    """
    from medgen.generation.set_aside import held

    streams.only_log()
    with held(pairs, alone=True) as locks:
        training = read_training(pairs, against, overrides)
        run(pairs, locks, training, range(1 << 61), limit, report)


def run(
    pairs: Path,
    locks: Locks,
    training: Samples,
    wanted: Container[int],
    limit: float = LIMIT,
    report: Path | None = None,
) -> None:
    """Compare pairs with training slices, say what was found, and raise PrivacyError beyond the limit."""
    from medgen.evaluation.copies import identify
    from medgen.generation import set_aside

    set_aside.move(pairs)
    key = identify(training)
    rows = set_aside.waiting(pairs, key, wanted)
    if rows:
        _compare(pairs, locks, training, rows, report or pairs / "audit.json")
    found = set_aside.audited(pairs, key)
    _table(found)
    say_result(pairs / set_aside.FOLDER / "audit.png")
    if found.share > limit:
        of = f"{len(found.copies)} of {len(found.rows)} pairs are copies of training data"
        what = f"{of}, over a share of {limit:.3g}, and were moved to {pairs / set_aside.FOLDER}"
        advice = "Train on more patients, for fewer steps or with a smaller network"
        raise PrivacyError(Problem(pairs, what, advice))


def read_training(pairs: Path, against: str, overrides: tuple[str, ...] = ()) -> Samples:
    """The training slices of a recipe, run, checkpoint or folder, on the grid of the pairs."""
    from medgen.evaluation import sources
    from medgen.evaluation.samples import EVERY, read_real

    source = sources.real(against, overrides, options.registry())
    is_folder = Path(against).is_dir() and not (Path(against) / "recipe.toml").is_file()
    return read_real(source, EVERY if is_folder else "train", _like(pairs), source.data.lesion_only)


def _like(pairs: Path) -> Samples:
    """The first pair: its size, channels and mm per pixel."""
    from medgen.generation.set_aside import first_pair

    return first_pair(pairs)


def _compare(pairs: Path, locks: Locks, training: Samples, rows: dict[int, Any], report: Path) -> None:
    from medgen.evaluation.copies import CALIBRATION, Judge
    from medgen.generation import set_aside
    from medgen.system.console import progress

    with progress("calibration", min(CALIBRATION, len(training)), "slices") as bar:
        judge = Judge(training, bar.advance)
    with progress("audit", len(rows), unit="pairs") as bar:
        set_aside.audit(pairs, locks, judge, rows, bar.advance)
    about = _about(judge)
    set_aside.amend(pairs, locks, {}, {"audit": about})
    with set_aside.unchanging(locks):  # another part of the pairs may be audited at the same time
        found = set_aside.audited(pairs, judge.key)
        _write_report(report, about, found)
        _picture(pairs, judge, found)


def _about(judge: Judge) -> dict[str, Any]:
    """What the audit compared with and how far it can be trusted."""
    import numpy as np

    share, low, high = judge.false_alarms(np.random.default_rng(0))
    alarms = [None if np.isnan(each) else round(float(each), 5) for each in (share, low, high)]
    training = judge.training
    return {
        "against": judge.key,
        "slices": len(training),
        "persons": len(training.persons),
        "false_alarms": dict(zip(("share", "low", "high"), alarms, strict=True)),
    }


def _write_report(path: Path, about: dict[str, Any], found: Audited) -> None:
    import json

    from medgen.system import files

    counts = {"pairs": len(found.rows), "copies": len(found.copies)}
    pairs = [{"id": row["id"], "set_aside": row.get("set_aside"), **row["nearest"]} for row in _worst(found, None)]
    try:
        files.write(path, json.dumps({**about, **counts, "worst_first": pairs}, indent=1) + "\n")
    except OSError as error:
        raise StorageError(Problem(path, reason(error), "Give another --report")) from error


def _picture(pairs: Path, judge: Judge, found: Audited) -> None:
    from medgen.evaluation import copies_picture, pair_files
    from medgen.generation import set_aside

    blocks = [pair_files.read([set_aside.place(pairs, row)], row["files"]) for row in _worst(found, WORST)]
    copies_picture.save(judge, blocks, pairs / set_aside.FOLDER / "audit.png")


def _worst(found: Audited, count: int | None) -> list[dict[str, Any]]:
    """The pairs furthest beyond their limits, or nearest to them."""
    return sorted(found.rows.values(), key=lambda row: (-row["nearest"]["excess"], row["index"]))[:count]


def _table(found: Audited) -> None:
    from medgen.system.console import say

    say(f"audit: {len(found.copies)} of {len(found.rows)} pairs are copies of training data")
    for row in _worst(found, WORST):
        near = row["nearest"]
        lesion = near.get("lesion")
        beside = f", lesion {lesion['distance']:.4f} ({lesion['limit']:.4f}) {lesion['to']}" if lesion else ""
        what = f"  {row['id']}  distance {near['distance']:.4f} (copy below {near['limit']:.4f})  {near['to']}"
        say(f"{what}{beside}{'  ' + row['set_aside'] if row.get('set_aside') else ''}")


# At the end of `medgen generate`


def after_generate(
    out: Path,
    image_model: Path | None,
    wanted: Container[int],
    against: str | None,
    asked: bool,
    obedience: float | None = None,
) -> None:
    """Audit the pairs of some indices where the training data is at hand, else say that it is not, once each.

    obedience: Dice of what a segmenter taught on the training slices finds; it is noted, and a pair below is set aside.
    """
    from medgen.generation import set_aside
    from medgen.system.console import say

    where, why = at_hand(image_model, against, asked)
    if obedience is not None and not where:
        option = "--min-obedience" if obedience else "--obedience"
        raise RecipeError(Problem(option, f"needs the training scans, and {why}", "Give --audit-against DATA"))
    with set_aside.held(out, alone=False) as locks:
        if where:
            training = read_training(out, where)
            if obedience is not None:
                _obey(out, locks, training, wanted, obedience)
            run(out, locks, training, wanted)
            return
        set_aside.amend(out, locks, {}, {"audit": {"done": False, "why": why}})
    if asked:
        say(f"audit: not done, {why}")


def _obey(out: Path, locks: Locks, training: Samples, wanted: Container[int], least: float) -> None:
    from medgen.evaluation import obedience, sources
    from medgen.generation import set_aside
    from medgen.system.console import say

    segmenter = sources.measure("segmenters", obedience.SEGMENTER, (), options.registry())
    set_aside.obey(out, locks, lambda: obedience.fit(segmenter, training), least, wanted)
    if least:
        say(f"obedience: {set_aside.disobedient(out, wanted)} pairs below {least:g} are in {out / set_aside.FOLDER}")


def at_hand(image_model: Path | None, against: str | None, asked: bool) -> tuple[str, str]:
    """Return where the training data of an image model is, or why there is none to compare with.

    A checkpoint names no folder, as it may be given away; the recipe beside it, in its run's folder, does.
    """
    if not asked:
        return "", "--no-audit"
    if image_model is None:
        return "", "these pairs have no images"
    if against:
        return against, ""
    folder = image_model if image_model.is_dir() else image_model.parent
    if not (folder / "recipe.toml").is_file():
        return "", "the checkpoint does not lie in its run's folder: give --audit-against DATA"
    from medgen.config.recipe import load

    if not load(folder / "recipe.toml", (), (), options.registry()).data.root.is_dir():
        return "", "the data.root of the model's run is not there: give --audit-against DATA"
    return str(folder), ""
