"""From real scans and pairs to a card."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from medgen.api.measures import FeaturesSettings
from medgen.api.tables import DataSettings
from medgen.evaluation import comparison as persons
from medgen.evaluation import fidelity, pair_files, planes
from medgen.evaluation.card import Card
from medgen.evaluation.card_sections import SECTIONS
from medgen.evaluation.comparison import Comparison
from medgen.evaluation.figures import Figure
from medgen.evaluation.heads import heads_of
from medgen.evaluation.pair_samples import read_pairs
from medgen.evaluation.samples import Samples, read_real
from medgen.evaluation.sources import Source
from medgen.evaluation.threads import threads
from medgen.evaluation.verdict import judge
from medgen.run.assemble import default_device
from medgen.run.versions import versions
from medgen.system import console

LIMIT = 2000
"""Samples of each set at most, drawn at random."""
VOLUMES = 200
"""Volumes of each set at most, as they are held in memory: the first pairs, and real ones evenly."""
SPLIT = "train"
DRAWS = 200
"""Of each bootstrap."""
LEAST_HEAD = 0.02
"""Share of the pairs that may show less of a head than every real slice beside them."""
MOST_PERSONS, KEPT = 0.75, 0.25
"""Share of the real persons that keep at least this share of their slices."""


@attrs.frozen(kw_only=True)
class Asked:
    """What a user wants to know. features: settings by name, in order; the verdict comes from the
    first of anatomy.
    """

    features: Mapping[str, FeaturesSettings]
    seed: int = 0
    limit: int = LIMIT
    draws: int = attrs.field(factory=lambda: DRAWS)
    split: str = SPLIT


def compare(source: Source, pairs: Path, asked: Asked) -> Comparison:
    """Read both sides and deal the persons out. Raises DataError."""
    most = min(asked.limit, VOLUMES) if pair_files.are_volumes(pairs) else None
    return compare_samples(source, read_pairs(pairs, most), asked)


def compare_samples(source: Source, made: Samples, asked: Asked) -> Comparison:
    """Read the real side, and deal the persons out. Raises DataError."""
    most = None if made.axes == 2 else VOLUMES
    real = read_real(source, asked.split, made, most=most)
    if not source.images and made.axes == 2:  # a bare folder; a recipe has chosen its slices
        real = _as_much_head(real, made)
    whole = attrs.evolve(source, data=_whole_heads(source.data))
    heads = read_real(whole, asked.split, made, lesions_only=False, most=most)
    made, real = (
        persons.thinned(each, asked.limit, asked.seed, number)
        for number, each in enumerate((made, real))
    )
    return persons.arrange(made, real, heads, asked.seed, asked.draws)


def _as_much_head(real: Samples, made: Samples) -> Samples:
    """Leave out real slices that show less of a head than nearly all pairs do: those of all heights
    differ more than pairs of the middle can. Most persons keep their slices of largest heads.
    """
    mine, theirs = (heads_of(each.images).mean((1, 2)) for each in (made, real))
    large = [np.quantile(theirs[real.people == each], 1 - KEPT) for each in real.persons]
    least = min(np.quantile(mine, LEAST_HEAD), np.quantile(large, 1 - MOST_PERSONS))
    return real.take(theirs >= least)


def measure(comparison: Comparison, source: Source, asked: Asked) -> Card:
    """Return the card, and show a bar."""
    figures, hashes = _figures(comparison, asked)
    return Card(
        verdict=judge(figures, asked.features),
        figures=tuple(figures),
        made={**_about(comparison.made), "control": comparison.control},
        real={
            **_about(comparison.real),
            "heads": len({*comparison.folds[0].heads.persons, *comparison.real.persons}),
        },
        selection=_selection(comparison, source, asked),
        extractors=hashes,
        seed=asked.seed,
        draws=asked.draws,
        versions=versions(),
    )


def _figures(comparison: Comparison, asked: Asked) -> tuple[list[Figure], dict[str, str]]:
    """Return the figures, those on features first, and the hash of each extractor. Make several parts
    at a time, each in one thread of torch.
    """

    def on_features(name: str) -> tuple[list[Figure], str]:
        extractor = planes.extractor(asked.features[name], comparison.made.axes, default_device())
        return fidelity.figures_of(comparison, name, extractor)

    def of_section(name: str) -> tuple[list[Figure], str]:
        return SECTIONS[name](comparison), ""

    # sections begin first, as one of them takes longest
    parts = [partial(of_section, name) for name in SECTIONS]
    parts += [partial(on_features, name) for name in asked.features]
    made = list[tuple[list[Figure], str]]()
    with console.progress("card", len(parts), unit="parts") as bar, threads() as work:
        for part in work(lambda part: part(), parts):
            made.append(part)
            bar.advance()
    sections, features = made[: len(SECTIONS)], made[len(SECTIONS) :]
    hashes = {name: digest for name, (_, digest) in zip(asked.features, features, strict=True)}
    return [figure for found, _ in features + sections for figure in found], hashes


def _whole_heads(data: DataSettings) -> DataSettings:
    """From neck to crown, as a place in the head is only told in whole heads."""
    return attrs.evolve(
        data, min_foreground=min(data.min_foreground, DataSettings().min_foreground)
    )


def _about(samples: Samples) -> dict[str, Any]:
    counts = {f"{samples.noun}s": len(samples), "persons": len(samples.persons)}
    return {"where": samples.where, **counts, "fingerprint": persons.fingerprint(samples)}


def _selection(comparison: Comparison, source: Source, asked: Asked) -> dict[str, Any]:
    made, data = comparison.made, source.data
    return {
        "channels": ", ".join(made.channels),
        "masks": ", ".join(source.masks),
        "grid": made.grid.described,
        "split": asked.split,
        f"{made.noun}s": f"with a lesion, at least {data.min_foreground:g} head",
        "seed": asked.seed,
        "limit": asked.limit,
    }
