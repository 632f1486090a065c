"""What `medgen generate` does."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from medgen.cli import _auto_steps, generators
from medgen.cli._audit import after_generate
from medgen.cli.generate_types import Asked
from medgen.cli.options import say_result
from medgen.errors import IncompleteError, PrivacyError, Problem, RecipeError
from medgen.evaluation import pair_files
from medgen.generation import pair_writer as work
from medgen.generation import workers
from medgen.generation.indices import Indices, wanted
from medgen.generation.pair_writer import Outcome
from medgen.system import streams
from medgen.system.console import say
from medgen.system.signals import asked_to_stop


def generate(asked: Asked, arguments: list[str]) -> int:
    """Make the pairs that are asked for, in this process or several, and look for copies. Returns
    the exit code.
    """
    least = _least(asked)
    streams.only_log()
    shard = workers.share(*asked.shard)
    indices = wanted(asked.num_images, asked.only, asked.batch_size, shard)
    if not indices:
        _say_nothing(asked.num_images or 0, asked.batch_size, shard)
        return 0
    command = shlex.join(["medgen", *arguments])
    devices = workers.processes(asked.devices, indices) if isinstance(indices, Indices) else 1
    if devices > 1:
        if code := workers.supervise(arguments, devices, len(indices), asked.output_dir, command):
            return code
        if isinstance(asked.steps, str):
            _auto_steps.show(asked.output_dir)
    else:
        _make(asked, indices, command)
    if not workers.notes():
        copies = _audit(
            asked.output_dir, asked.image_model, indices, asked.audit_against, asked.audit, least
        )
        _conclude(asked.output_dir, indices, asked.max_area, asked.max_attempts, copies)
    return 0


def _least(asked: Asked) -> float | None:
    """Return the Dice below which pairs are set aside, 0 to set none aside; None: it is not
    measured.
    """
    least = asked.min_obedience if asked.obedience or asked.min_obedience else None
    if least is not None and not asked.audit:
        what = "needs the training scans, which --no-audit leaves out"
        raise RecipeError(
            Problem("--min-obedience" if least else "--obedience", what, "Leave one of them out")
        )
    return least


def _make(asked: Asked, indices: Sequence[int], command: str) -> None:
    with workers.joined(), asked_to_stop(command) as stop:
        attempts = asked.max_attempts if asked.inside == "head" else 0
        make = generators.maker(
            asked.image_model,
            asked.seg_model,
            asked.seed,
            asked.batch_size,
            asked.max_area,
            asked.max_attempts,
            attempts,
            asked.position,
            asked.guidance,
            asked.anatomy,
        )
        make = generators.formed(make, asked.like)
        steps = asked.steps
        if isinstance(steps, str):
            steps = _auto_steps.settle(
                make, asked.output_dir, asked.image_model, asked.audit_against, asked.seed, stop
            )
        generator = make(steps)
        with workers.progress(len(indices)) as advance:
            work.generate(generator, indices, asked.output_dir, stop, advance)


def _audit(
    output_dir: Path,
    image_model: Path | None,
    indices: Sequence[int],
    against: str | None,
    asked: bool,
    obedience: float | None,
) -> Sequence[Problem]:
    """Look for copies; returns what is wrong with the pairs, if anything."""
    if work.outcome(output_dir, indices).empty:
        return []
    try:
        after_generate(output_dir, image_model, indices, against, asked, obedience)
    except PrivacyError as error:
        return error.problems
    return []


def _say_nothing(num_images: int, batch_size: int, shard: tuple[int, int]) -> None:
    blocks = -(-num_images // batch_size)
    counted = f"{blocks} blocks" if blocks > 1 else "one block"
    what = f"{num_images} pairs are {counted} of --batch-size {batch_size}"
    say(f"shard {shard[0]}/{shard[1]}: nothing of its own: {what}")


def _conclude(
    output_dir: Path,
    indices: Sequence[int],
    max_area: float,
    max_attempts: int,
    copies: Sequence[Problem],
) -> None:
    """Print the result's path. Raises IncompleteError if pairs were left out, PrivacyError for
    copies.
    """
    outcome = work.outcome(output_dir, indices)
    picture = output_dir / "pairs.png"
    say_result(picture if picture.exists() else output_dir)
    if outcome.failed:
        what = f"{outcome.failed} of {len(indices)} masks were invalid {max_attempts} times"
        noun = "volume" if pair_files.are_volumes(output_dir) else "slice"
        left_out = Problem(output_dir, f"{what} {_why_invalid(outcome, max_area, noun)}")
        raise PrivacyError(*copies, left_out) if copies else IncompleteError(left_out)
    if copies:
        raise PrivacyError(*copies)


def _why_invalid(outcome: Outcome, max_area: float, noun: str) -> str:
    """Describe the faults of the invalid masks, and what to change. noun: what a pair is."""
    listed = (
        "indices " + ", ".join(map(str, outcome.first)) + (", ..." if outcome.failed > 10 else "")
    )
    empty, large, outside = (outcome.rejected[why] for why in ("empty", "too_large", "outside"))
    draws = f"draws: {empty} empty, {large} larger than {max_area:.3g} of the {noun}"
    draws += f", {outside} in part outside the image model's {noun}s" if outside else ""
    misfits = outcome.rejected["outside_anatomy"]
    draws += f", {misfits} outside every anatomy tried (--inside head)" if misfits else ""
    away = outcome.rejected["outside_head"]
    draws += f", {away} outside the head that was drawn for it (--inside head)" if away else ""
    raised = "--max-area or --max-attempts" if large else "--max-attempts"
    where = "" if outcome.empty else ", in a new --output-dir"
    return f"({listed}; {draws}). Train the mask model longer, or raise {raised}{where}"
