"""What a comparison of arms says: sentences, a table, a plot, JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from rich.table import Table

from medgen.evaluation.arms import MIXED, PASTED, PRIMARY
from medgen.evaluation.lesion_scores import SIZES
from medgen.evaluation.prove import Proof
from medgen.evaluation.worth import Interval
from medgen.system import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAVEAT = (
    "A small segmenter, trained for minutes, is not nnU-Net. `medgen export PAIRS --nnunet OUT` writes the folders "
    "to train nnU-Net on the same data."
)


def sentences(proof: Proof) -> list[str]:
    """Return verdict, worth and what they do not say."""
    gain, to_real = proof.verdict.gain, proof.verdict.to_real
    said = [
        f"{proof.verdict.word}: {MIXED} scores {_signed(gain)} lesion Dice beside {proof.verdict.against}."
    ]
    if proof.verdict.against == PASTED:
        said.append(f"Beside real data alone the difference is {_signed(to_real)}.")
    return [*said, worth_sentence(proof), CAVEAT]


def worth_sentence(proof: Proof) -> str:
    """Return how many more real patients the pairs are worth, or why nobody can tell."""
    value, low, high = proof.worth.persons
    base, most = proof.about["base"], proof.worth.most
    if not proof.worth.rises:
        few = f"{min(proof.curve)} to {max(proof.curve)}"
        return (
            f"How many patients the pairs are worth cannot be told: from {few} real patients this segmenter does not "
            "get measurably better. Raise --steps, or test on more patients."
        )
    said = f"These pairs are worth {_count(value, most)} more real patients ({_range(low, high, most)}), added to {base}."
    beyond = base + value > max(proof.curve)
    return said + (
        f" That is beyond the {max(proof.curve)} measured, by the fitted curve." if beyond else ""
    )


def table(proof: Proof) -> Table:
    """Return a row per arm, a column per score, with intervals for the primary one."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    rows.add_column("trained on", no_wrap=True)
    shown = _shown(proof)
    for name in shown:
        rows.add_column(name, justify="right")
    for arm, scores in proof.means.items():
        cells = [str(scores[PRIMARY]), *(_number(scores[name].value) for name in shown[1:])]
        rows.add_row(arm, *cells, style="bold" if arm == MIXED else "")
    return rows


def _shown(proof: Proof) -> list[str]:
    """Return the scores that the table has, the primary one first."""
    false = next(name for name in proof.means[MIXED] if name.startswith("false positives"))
    return [PRIMARY, "sensitivity", false, *(f"{PRIMARY}, {size.name}" for size in SIZES)]


def to_json(proof: Proof) -> str:
    """Return everything, intervals as [value, low, high], null for what cannot be told."""
    value = {
        "verdict": proof.verdict.word,
        "sentences": sentences(proof),
        "against": proof.verdict.against,
        "gain": _listed(proof.verdict.gain),
        "gain_to_real": _listed(proof.verdict.to_real),
        "worth_persons": _listed(proof.worth.persons) if proof.worth.rises else None,
        "worth_at_most": proof.worth.most,
        "scores": {
            arm: {name: _listed(each) for name, each in scores.items()}
            for arm, scores in proof.means.items()
        },
        "curve": {str(number): arm for number, arm in proof.curve.items()},
        "curve_fitted": [float(each) for each in proof.worth.fitted],
        "method": "score(n) = a - b n^-c by least squares, inverted; intervals: bootstrap over test persons and seeds",
        "about": dict(proof.about),
    }
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def write(proof: Proof, out: Path) -> Path:
    """Write OUT/prove.json and OUT/prove.png. Returns the picture's path."""
    files.write(out / "prove.json", to_json(proof))
    picture = out / "prove.png"
    with files.replacing(picture) as made:
        plot(proof, made)
    return picture


def plot(proof: Proof, path: Path) -> None:
    """Draw the learning curve with the mixed arm's score, and every arm with its interval, as PNG."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    curve, arms = figure.subplots(1, 2)
    _draw_curve(curve, proof)
    _draw_arms(arms, proof)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def _draw_curve(axes: Axes, proof: Proof) -> None:
    numbers = sorted(proof.curve)
    scores = [proof.means[proof.curve[number]][PRIMARY] for number in numbers]
    axes.errorbar(
        numbers,
        [each.value for each in scores],
        _bars(scores),
        fmt="o",
        capsize=3,
        label="real patients",
    )
    axes.plot(numbers, proof.worth.fitted, "-", color="C0", alpha=0.6)
    mixed = proof.means[MIXED][PRIMARY]
    axes.axhspan(mixed.low, mixed.high, color="C1", alpha=0.15)
    base = proof.about["base"]
    axes.axhline(mixed.value, color="C1", label=f"{base} real patients and the pairs")
    axes.set(
        xscale="log",
        xlabel="real patients",
        ylabel="lesion Dice, 95 % interval",
        title="what pairs are worth",
    )
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.minorticks_off()
    axes.legend(loc="lower right")


def _draw_arms(axes: Axes, proof: Proof) -> None:
    names = list(proof.means)[::-1]
    scores = [proof.means[name][PRIMARY] for name in names]
    colours = ["C1" if name == MIXED else "C2" if name == PASTED else "C0" for name in names]
    axes.barh(
        names,
        [each.value for each in scores],
        xerr=_bars(scores),
        color=colours,
        alpha=0.7,
        capsize=3,
    )
    axes.set(xlabel="lesion Dice, 95 % interval", title=proof.verdict.word)


def _bars(scores: list[Interval]) -> list[list[float]]:
    return [[each.value - each.low for each in scores], [each.high - each.value for each in scores]]


def _signed(difference: Interval) -> str:
    return f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def _count(persons: float, most: float) -> str:
    return f"at least {most:.0f}" if persons >= most else f"{persons:.0f}"


def _range(low: float, high: float, most: float) -> str:
    return (
        f"95 % interval {low:.0f} or more"
        if high >= most
        else f"95 % interval {low:.0f} to {high:.0f}"
    )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _listed(interval: Interval) -> list[Any]:
    return [None if math.isnan(each) else round(each, 6) for each in interval]
