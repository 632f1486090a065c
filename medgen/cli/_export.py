"""What `medgen export` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medgen.cli import options
from medgen.evaluation import nnunet, pair_samples, samples, sources
from medgen.evaluation.nnunet import UNSEEN, Dataset, Fold
from medgen.evaluation.unseen import require_unseen
from medgen.system.console import progress, say


def export(
    pairs: Path,
    overrides: Sequence[str],
    out: Path,
    real: str | None,
    saw: str,
    *,
    number: int,
    name: str,
    seed: int,
) -> None:
    """Write a raw dataset of nnU-Net, and say what its folds are."""
    source = sources.real(real, overrides, options.registry()) if real else None
    if source:
        require_unseen(source, pairs, UNSEEN[saw])
    made = pair_samples.read_pairs(pairs)
    both = [
        samples.read_real(source, split, like=made) if source else None
        for split in ("train", "val")
    ]
    dataset = nnunet.Dataset(number, name, made, both[0], both[1], saw)  # type: ignore[arg-type]  # click checked it
    total = sum(len(each) for each in (made, *both) if each is not None)
    with progress("cases", total, unit="written") as bar:
        folds = nnunet.export(dataset, out, seed, bar.advance)
    _conclude(dataset, folds)
    options.say_result(out / dataset.folder)


def _conclude(dataset: Dataset, folds: Sequence[Fold]) -> None:
    """What the folds are, and where nnU-Net looks for them."""
    if not folds:
        say(
            "no splits_final.json: pairs are no cases to validate on. Train with `-f all`, or give --real."
        )
        return
    mixed = [str(number) for number, fold in enumerate(folds) if fold.pairs]
    which = (
        f"folds {', '.join(mixed)} of {len(folds)} train on pairs"
        if mixed
        else "no fold trains on pairs"
    )
    say(
        f"{which}: the others validate persons whom the generator saw (--generator-saw {dataset.saw})."
    )
    say(
        f"Copy splits_final.json to nnUNet_preprocessed/{dataset.folder}/ after nnUNetv2_plan_and_preprocess."
    )
