"""The job of a recipe: slurm/train.slurm with the recipe's own time, devices and memory."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medgen import hookimpl
from medgen.api.recipe import TableSettings
from medgen.api.settings import field, settings
from medgen.api.tables import size_text
from medgen.api.value_checks import Check, between, ge
from medgen.config.checks import require_equal_shares
from medgen.errors import Problem, RecipeError
from medgen_builtins.commands._slurm_submission import submit_job

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe

medgen_api = 1
BODY = "\nset -u\n"
"""First line of the work in slurm/train.slurm; comments and options precede it."""

REPORTED = (
    "trap 'echo \"medgen: job $SLURM_JOB_ID: slurm.setup ended it (exit code $?). It is not queued again.\" >&2' EXIT",
    # for the lines themselves, not for the files that they source, where a command may fail and is meant to
    "trap 'code=$?; [ ${#BASH_SOURCE[@]} -gt 1 ] ||"
    ' echo "medgen: job $SLURM_JOB_ID: slurm.setup: $BASH_COMMAND: exit code $code. The job goes on." >&2\' ERR',
)
"""Shell that reports a failure of `slurm.setup`."""


_WORD = Check(
    lambda value: not value or _matches(r"[\w.,:@+-]+", value),
    "of letters, digits and . , : @ + - _",
)
_MEMORY = Check(lambda value: not value or _matches(r"\d+[KMGT]?", value), "such as 64G")
_OPTION = Check(
    lambda value: value.startswith("--") and value.isprintable() and _closed(value),
    "that begins with --, is one line, and closes its quotes",
)
_LINE = Check(lambda value: value.isprintable(), "that is one line of shell")


@settings
class SlurmSettings(TableSettings):
    """What a job asks Slurm for; `medgen slurm RECIPE` writes it. Devices of a node:
    `training.devices`.
    """

    hours: float = field(
        24.0,
        help="hours, time limit of a job; the next job continues the run",
        check=between(0.02, 8760),
    )
    nodes: int = field(1, help="number of machines", check=between(1, 65536))
    cpus: int = field(8, help="CPU cores per device", check=between(1, 4096))
    memory: str = field(
        "", help="memory of a node, such as 64G; empty: the cluster's default", check=_MEMORY
    )
    gpu: str = field(
        "any",
        help="kind of GPU, such as a100; any: every kind; none: devices are CPUs",
        check=_WORD,
    )
    partition: str = field("", help="partition; empty: the cluster's default", check=_WORD)
    account: str = field("", help="account to charge; empty: the user's default", check=_WORD)
    notice: int = field(
        120,
        help="seconds before the limit at which the run is told to save",
        check=between(1, 65535),
    )
    restarts: int = field(50, help="maximum number of requeues of a job", check=ge(0))
    options: tuple[str, ...] = field(
        (), help='further sbatch options: ["--constraint=ib"]', check=_OPTION
    )
    setup: tuple[str, ...] = field(
        (), help='shell lines to run first: ["module load cuda"]', check=_LINE
    )
    may_change = (
        "hours", "nodes", "cpus", "memory", "gpu", "partition", "account", "notice", "restarts", "options", "setup"
    )  # fmt: skip
    public = False


def _matches(pattern: str, value: str) -> bool:
    return re.fullmatch(pattern, value, re.ASCII) is not None


def _closed(value: str) -> bool:
    """True if sbatch, which splits a line like a shell, finds the end of each quote."""
    try:
        return bool(shlex.split(value))
    except ValueError:
        return False


def slurm_table(recipe: Recipe) -> SlurmSettings:
    """Return the recipe's table [slurm]."""
    table = recipe.tables["slurm"]
    assert isinstance(table, SlurmSettings)
    return table


@click.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--with", "layers", multiple=True, metavar="FILE", help="Layer to apply over the recipe."
)
@click.option("--submit", is_flag=True, help="Submit the script to sbatch instead of printing it.")
def slurm(recipe: str, overrides: tuple[str, ...], layers: tuple[str, ...], submit: bool) -> None:
    """Print the sbatch script that trains RECIPE, in as many jobs as it takes.

    What the job asks for stands in the recipe's table [slurm]; devices are training.devices.
    """
    from medgen.config.recipe import load

    given = [recipe, *overrides, *(word for layer in layers for word in ("--with", layer))]
    loaded = load(recipe, overrides, layers)
    check(loaded)
    text = script(loaded, given)
    click.echo(submit_job(text) if submit else text, nl=False)


def check(recipe: Recipe) -> None:
    """Raise RecipeError for mistakes that would otherwise show only after the job has waited."""
    wanted, limit = slurm_table(recipe), 60 * minutes(recipe)
    require_equal_shares(recipe, recipe.training.devices * wanted.nodes)
    if 2 * wanted.notice > limit:
        raise RecipeError(
            Problem(
                "slurm.notice",
                f"got {wanted.notice} s, expected at most half of the {limit} s of a job (slurm.hours = "
                f"{wanted.hours:g}), which no longer trains after it",
                "Lower it, or ask for more hours",
            )
        )


def minutes(recipe: Recipe) -> int:
    """Format a job's limit."""
    return math.ceil(60 * slurm_table(recipe).hours)


def script(recipe: Recipe, given: Sequence[str]) -> str:
    """Write the whole script. given: the recipe and the words after it, as `medgen train` gets
    them.

    Raises RecipeError if one of those words has a character that does not belong on a line.
    """
    for word in (word for word in (*given, str(run_dir(recipe))) if not word.isprintable()):
        raise RecipeError(
            Problem(
                f"{word!r}", "has a character that cannot be printed", "Rename the file or folder"
            )
        )
    header = ["#!/bin/bash", *(f"#SBATCH {each}" for each in options(recipe, given[0]))]
    values = [
        f"set -- {shlex.join(given)}",
        f"run_dir={run_dir(recipe)}",
        f"restarts={slurm_table(recipe).restarts}",
    ]
    return "\n".join([*header, "", *_setup(slurm_table(recipe).setup), *values, "", body()])


def _setup(lines: Sequence[str]) -> list[str]:
    """Write the user's shell lines so that none ends the job or fails silently."""
    return [*REPORTED, *lines, "trap - ERR"] if lines else []


def options(recipe: Recipe, name: str) -> Iterator[str]:
    """List the options of sbatch; a later option replaces an earlier one."""
    wanted, devices = slurm_table(recipe), recipe.training.devices
    yield "--job-name=medgen-" + re.sub(r"[^\w.-]", "_", Path(name).stem, flags=re.ASCII)
    yield f"--time={minutes(recipe)}"
    yield f"--nodes={wanted.nodes}"
    yield f"--ntasks-per-node={devices}"
    yield f"--cpus-per-task={wanted.cpus}"
    if wanted.gpu != "none":
        kind = f"{wanted.gpu}:" if wanted.gpu not in ("", "any") else ""
        yield f"--gpus-per-node={kind}{devices}"
    for option, value in (
        ("mem", wanted.memory),
        ("partition", wanted.partition),
        ("account", wanted.account),
    ):
        if value:
            yield f"--{option}={value}"
    yield "--output=%x-%j.out"
    yield "--open-mode=append"
    yield "--requeue"
    yield f"--signal=USR1@{wanted.notice}"
    yield from wanted.options


def run_dir(recipe: Recipe) -> str:
    """Write the run's folder in shell: the recipe's, or one with the job's id in place of the time."""
    if recipe.run.dir:
        return shlex.quote(str(recipe.run.dir))
    names = {
        "mode": recipe.names["mode"],
        "strategy": recipe.names["strategy"],
        "name": recipe.run.name,
        "size": size_text(recipe.data.image_size),
        "dimensions": recipe.data.axes,
        "timestamp": "\0",
    }
    folder = str(recipe.run.root / recipe.run.folder.format(**names))
    parts = (folder if "\0" in folder else f"{folder}_\0").split("\0")
    return '"$SLURM_JOB_ID"'.join(shlex.quote(part) if part else "" for part in parts)


def body() -> str:
    """Read the body of slurm/train.slurm, from a checkout or as installed by the wheel."""
    beside = Path(__file__).parents[3] / "slurm"
    folder = (
        beside
        if (beside / "train.slurm").is_file()
        else Path(sys.prefix, "share", "medgen", "slurm")
    )
    text = (folder / "train.slurm").read_text(encoding="utf-8")
    return text[text.index(BODY) + 1 :]


@hookimpl
def medgen_commands() -> Sequence[click.Command]:
    return [slurm]


@hookimpl
def medgen_tables() -> dict[str, type]:
    return {"slurm": SlurmSettings}
