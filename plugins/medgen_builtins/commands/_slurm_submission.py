"""Submit a script to Slurm's sbatch."""

from __future__ import annotations

import os
import subprocess

from medgen.errors import Problem, RecipeError, reason

OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_TIME_FORMAT")
"""Variables that may belong to another job."""


def submit_job(text: str) -> str:
    """Return what sbatch says. Raises RecipeError if it refuses the script, or is not there."""
    try:
        done = subprocess.run(
            ["sbatch"], input=text, capture_output=True, text=True, env=_own_environment()
        )
    except OSError as error:
        raise RecipeError(
            Problem("sbatch", reason(error), "Submit on a machine that has Slurm")
        ) from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise RecipeError(
            Problem(
                "sbatch",
                f"refused the job ({said.rstrip('.')})",
                "Change the recipe's table [slurm]",
            )
        )
    return done.stdout


def _own_environment() -> dict[str, str]:
    """Return the environment without the variables of the job that `--submit` runs in."""
    own = dict(os.environ)
    if "SLURM_JOB_ID" in own:
        own = {
            name: own[name]
            for name in own
            if not name.startswith("SLURM_") or name in OF_THE_CLUSTER
        }
    return own
