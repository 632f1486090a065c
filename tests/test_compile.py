"""torch.compile around the objective: the same recipe, the same losses."""

import json
import shutil

import pytest


@pytest.mark.slow
def test_a_compiled_run_has_the_losses_of_an_eager_one_and_they_resume_each_other(medgen, tiny, tmp_path):
    if shutil.which("gcc") is None and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    quiet = ("callbacks.previews=false", "training.validate_every=0", "training.precision=bf16")
    for name in ("true", "false"):
        options = (*tiny, *quiet, f"training.compile={name}", "training.steps=4", f"run.dir={tmp_path / name}")
        result = medgen("train", "bravo_rflow", *options)
        assert result.code == 0, result.err
    compiled, eager = (
        [json.loads(line)["loss/train"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("true", "false")
    )
    assert compiled == pytest.approx(eager, rel=0.02)
    resumed = medgen("train", "--resume", tmp_path / "true", "training.steps=6")
    assert resumed.code == 0, resumed.err
    lines = [json.loads(line) for line in (tmp_path / "true/metrics.jsonl").read_text().splitlines()]
    assert [line.get("recompiles", 0) for line in lines] == [0] * 6
    assert "recompiles" in lines[-1]
