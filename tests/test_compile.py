"""torch.compile around the objective: the losses of an eager run, also with averaging, accumulation and ranks."""

from __future__ import annotations

import json
import shutil

import pytest
from faults import ranks
from faults.forkserver import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("gcc") or shutil.which("g++")),
        reason="torch.compile needs a C++ compiler",
    ),
]
QUIET = (
    "callbacks.previews=false", "callbacks.tensorboard=false", "training.validate_every=0", "training.precision=bf16",
    "training.accumulate=2", "callbacks.ema.decay=0.9",
)  # fmt: skip


def measured(folder):
    """The lines of the journal, one for each step."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    """Of each step."""
    return [line["loss/train"] for line in measured(folder)]


@pytest.fixture
def eager(medgen, tiny, tmp_path):
    """A run of four steps that is not compiled."""
    options = (*tiny, *QUIET, "training.steps=4", f"run.dir={tmp_path / 'eager'}")
    result = medgen("train", "bravo_rflow", *options)
    assert result.code == 0, result.err
    return tmp_path / "eager"


def test_a_compiled_run_has_the_losses_of_an_eager_one_and_goes_on(medgen, tiny, tmp_path, eager):
    folder = tmp_path / "compiled"
    options = (*tiny, *QUIET, "training.compile=true", "training.steps=4", f"run.dir={folder}")
    result = medgen("train", "bravo_rflow", *options)
    assert result.code == 0, result.err
    assert losses(folder) == pytest.approx(losses(eager), rel=0.02)
    resumed = medgen("train", "--resume", folder, "training.steps=6")
    assert resumed.code == 0, resumed.err
    lines = measured(folder)
    assert [line.get("recompiles", 0) for line in lines] == [0] * 6
    assert "recompiles" in lines[-1]


def test_two_compiled_ranks_have_the_losses_of_an_eager_process(tiny, tmp_path, eager):
    folder = tmp_path / "ranks"
    options = (*tiny, *QUIET, "training.compile=true", "training.steps=4", f"run.dir={folder}")
    both = [
        each.wait(seconds=600)
        for each in ranks.start(Server(tmp_path), "train", "bravo_rflow", *options)
    ]
    assert [each.code for each in both] == [0, 0], both
    assert losses(folder) == pytest.approx(losses(eager), rel=0.02)
    assert measured(folder)[-1]["recompiles"] == 0
