"""What `medgen prove` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medgen.cli import options
from medgen.evaluation import folds as reading
from medgen.evaluation import prove as work
from medgen.evaluation import prove_report, sources
from medgen.evaluation.arms import Comparison
from medgen.system.console import out, say
from medgen.system.signals import asked_to_stop


def prove(
    real: str,
    pairs: Path,
    overrides: Sequence[str],
    folder: Path,
    command: str,
    *,
    persons: int | None,
    times: float,
    steps: int,
    repeats: int,
    seed: int,
    test_share: float,
    leave_one_out: bool,
    segmenter: str,
    processes: int,
) -> None:
    """Train the arms, with their results in a folder, and say what pairs are worth. command: goes
    on if stopped.
    """
    registry = options.registry()
    sources.require_used(overrides, segmenters=[segmenter])
    settings = sources.measure("segmenters", segmenter, overrides, registry)
    source = sources.real(real, overrides, registry)
    folds = reading.read_all(source, pairs, leave_one_out, test_share, seed)
    base = persons or min(len(fold.pool.persons) for fold in folds.values())
    given = {
        name: Comparison(settings, *fold, base, times, steps, seed) for name, fold in folds.items()
    }
    with asked_to_stop(command) as stop:
        proof = work.prove(
            given, folder, segmenter=segmenter, repeats=repeats, workers=processes, stop=stop
        )
    picture = prove_report.write(proof, folder)
    out.print(prove_report.table(proof))
    for sentence in prove_report.sentences(proof):
        say(sentence)
    options.say_result(picture)
