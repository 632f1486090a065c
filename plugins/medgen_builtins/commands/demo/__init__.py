"""Make a cohort of patients with brain metastases: T1 before and after contrast, BRAVO, FLAIR and
lesion masks.

Anatomy is that of the MNI152 2009a symmetric template (T1, grey and white matter, in nilearn's
wheel), warped at random for each patient. As is usual in collections of metastases, the skull is
stripped and the background is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from medgen import hookimpl

medgen_api = 1


@click.command("data demo")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--patients",
    type=click.IntRange(1, 10**6),
    default=30,
    show_default=True,
    help="Number of patients.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same patients."
)
@click.option(
    "--randomised",
    is_flag=True,
    help="Draw contrast, noise, bias, skull and size of each head anew: to learn what holds for any sequence.",
)
@click.option(
    "--tissue",
    is_flag=True,
    help="Write tissue.nii.gz too: CSF, grey and white matter as three levels of grey.",
)
def demo(out: Path, patients: int, seed: int, randomised: bool, tissue: bool) -> None:
    """Write made-up patients with brain metastases to OUT: T1 before and after contrast, BRAVO,
    FLAIR and masks.
    """
    from medgen_builtins.commands.demo import command

    command.write(out, patients, seed, randomised, tissue)


@hookimpl
def medgen_commands() -> Sequence[click.Command]:
    return [demo]
