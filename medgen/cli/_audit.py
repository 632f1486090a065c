"""What `medgen audit` does, which `medgen generate` ends with."""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np

from medgen.cli import options
from medgen.cli.options import LIMIT, load_recipe, say_result
from medgen.data.scans.manifest_lines import listed
from medgen.errors import PrivacyError, Problem, RecipeError, StorageError, reason
from medgen.evaluation import copies_picture, pair_files, sources
from medgen.evaluation import obedience as following
from medgen.evaluation.copies import CALIBRATION, Judge, identify, median_distance
from medgen.evaluation.samples import EVERY, Samples, read_real
from medgen.generation import pair_audit
from medgen.generation.pair_audit import Audited
from medgen.system import files, streams
from medgen.system.console import progress, say
from medgen.system.locks import Locks

WORST = 8
"""Pairs in the table and the picture."""


def audit(
    pairs: Path, overrides: tuple[str, ...], against: str, limit: float, report: Path | None
) -> None:
    """Compare all pairs of a folder with training scans."""
    streams.only_log()
    with pair_audit.held(pairs, alone=True) as locks:
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
    """Compare pairs with training samples, say what was found, and raise PrivacyError beyond the
    limit.
    """
    pair_audit.move(pairs)
    key = identify(training)
    rows = pair_audit.waiting(pairs, key, wanted)
    if rows:
        _compare(pairs, locks, training, rows, report or pairs / "audit.json")
    found = pair_audit.audited(pairs, key)
    _table(found)
    _nearness(pairs, found)
    say_result(pairs / pair_audit.FOLDER / "audit.png")
    if found.share > limit:
        of = f"{len(found.copies)} of {len(found.rows)} pairs are copies of training data"
        what = f"{of}, over a share of {limit:.3g}, and were moved to {pairs / pair_audit.FOLDER}"
        advice = "Train on more patients, for fewer steps or with a smaller network"
        raise PrivacyError(Problem(pairs, what, advice))


def read_training(pairs: Path, against: str, overrides: tuple[str, ...] = ()) -> Samples:
    """The training samples of a recipe, run, checkpoint or folder, on the grid of the pairs."""
    source = sources.real(against, overrides, options.registry())
    is_folder = Path(against).is_dir() and not (Path(against) / "recipe.toml").is_file()
    like = pair_audit.first_pair(pairs)  # its size, channels and mm per pixel
    return read_real(source, EVERY if is_folder else "train", like, source.data.lesion_only)


def _compare(
    pairs: Path, locks: Locks, training: Samples, rows: dict[int, Any], report: Path
) -> None:
    with progress("calibration", min(CALIBRATION, len(training)), f"{training.noun}s") as bar:
        judge = Judge(training, bar.advance)
    with progress("audit", len(rows), unit="pairs") as bar:
        pair_audit.audit(pairs, locks, judge, rows, bar.advance)
    about = _about(judge)
    pair_audit.amend(pairs, locks, {}, {"audit": about})
    with pair_audit.unchanging(locks):  # another part of the pairs may be audited at the same time
        found = pair_audit.audited(pairs, judge.key)
        _write_report(report, about, found)
        _picture(pairs, judge, found)


def _about(judge: Judge) -> dict[str, Any]:
    """What the audit compared with and how far it can be trusted."""
    training = judge.training
    return {
        "against": judge.key,
        f"{training.noun}s": len(training),
        "persons": len(training.persons),
        "false_alarms": _plain("share", judge.false_alarms(np.random.default_rng(0))),
        "between_persons": _plain("distance", judge.between_persons(np.random.default_rng(0))),
    }


def _plain(name: str, found: tuple[float, float, float]) -> dict[str, float | None]:
    values = [None if np.isnan(each) else round(float(each), 5) for each in found]
    return dict(zip((name, "low", "high"), values, strict=True))


def _write_report(path: Path, about: dict[str, Any], found: Audited) -> None:
    counts = {"pairs": len(found.rows), "copies": len(found.copies), "nearest": _distance(found)}
    pairs = [
        {"id": row["id"], "set_aside": row.get("set_aside"), **row["nearest"]}
        for row in _worst(found, None)
    ]
    try:
        files.write(path, json.dumps({**about, **counts, "worst_first": pairs}, indent=1) + "\n")
    except OSError as error:
        raise StorageError(Problem(path, reason(error), "Give another --report")) from error


def _picture(pairs: Path, judge: Judge, found: Audited) -> None:
    blocks = [
        pair_files.read([pair_audit.place(pairs, row)], row["files"])
        for row in _worst(found, WORST)
    ]
    copies_picture.save(judge, blocks, pairs / pair_audit.FOLDER / "audit.png")


def _worst(found: Audited, count: int | None) -> list[dict[str, Any]]:
    """The pairs furthest beyond their limits, or nearest to them."""
    return sorted(found.rows.values(), key=lambda row: (-row["nearest"]["excess"], row["index"]))[
        :count
    ]


def _table(found: Audited) -> None:
    say(f"audit: {len(found.copies)} of {len(found.rows)} pairs are copies of training data")
    for row in _worst(found, WORST):
        near = row["nearest"]
        lesion = near.get("lesion")
        beside = (
            f", lesion {lesion['distance']:.4f} ({lesion['limit']:.4f}) {lesion['to']}"
            if lesion
            else ""
        )
        what = f"  {row['id']}  distance {near['distance']:.4f} (copy below {near['limit']:.4f})  {near['to']}"
        say(f"{what}{beside}{'  ' + row['set_aside'] if row.get('set_aside') else ''}")


def _nearness(pairs: Path, found: Audited) -> None:
    """Say how near pairs are to training slices, beside how near persons are to each other.

    A model that remembers its few patients makes pairs that are no copies, but nearer than persons.
    """
    with listed(pairs) as lines:
        persons = (lines.header or {}).get("audit", {}).get("between_persons", {})
    made = _distance(found)
    if made["low"] is None or persons.get("low") is None:
        return
    text = "{distance:.3f} ({low:.3f} to {high:.3f})"
    said = f"distance to the nearest training slice, median: {text.format(**made)}"
    nearer = made["high"] < persons["low"]
    say(
        f"{said}; of a person to the others: {text.format(**persons)}"
        f"{'. The pairs are nearer than persons are: the model remembers' if nearer else ''}"
    )


def _distance(found: Audited) -> dict[str, float | None]:
    distance = np.array([row["nearest"]["distance"] for row in found.rows.values()])
    rng = np.random.default_rng(0)
    return _plain("distance", median_distance(distance, np.arange(len(distance)), rng))


# At the end of `medgen generate`


def after_generate(
    out: Path,
    image_model: Path | None,
    wanted: Container[int],
    against: str | None,
    asked: bool,
    obedience: float | None = None,
) -> None:
    """Audit the pairs of some indices where the training data is at hand, else say that it is not,
    once each.

    obedience: Dice of what a segmenter taught on the training slices finds; it is noted, and a pair
    below is set aside.
    """
    where, why = at_hand(image_model, against, asked)
    if obedience is not None and not where:
        option = "--min-obedience" if obedience else "--obedience"
        raise RecipeError(
            Problem(option, f"needs the training scans, and {why}", "Give --audit-against DATA")
        )
    with pair_audit.held(out, alone=False) as locks:
        if where:
            training = read_training(out, where)
            if obedience is not None:
                _obey(out, locks, training, wanted, obedience)
            run(out, locks, training, wanted)
            return
        pair_audit.amend(out, locks, {}, {"audit": {"done": False, "why": why}})
    if asked:
        say(f"audit: not done, {why}")


def _obey(out: Path, locks: Locks, training: Samples, wanted: Container[int], least: float) -> None:
    segmenter = sources.measure("segmenters", following.SEGMENTER, (), options.registry())
    pair_audit.obey(out, locks, lambda: following.fit(segmenter, training), least, wanted)
    if least:
        say(
            f"obedience: {pair_audit.disobedient(out, wanted)} pairs below {least:g} are in {out / pair_audit.FOLDER}"
        )


def at_hand(image_model: Path | None, against: str | None, asked: bool) -> tuple[str, str]:
    """Return where the training data of an image model is, or why there is none to compare with.

    A checkpoint names no folder, as it may be given away; the recipe beside it, in its run's
    folder, does.
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
    if not load_recipe(folder / "recipe.toml").data.root.is_dir():
        return "", "the data.root of the model's run is not there: give --audit-against DATA"
    return str(folder), ""
