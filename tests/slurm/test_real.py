"""The jobs on a Slurm of one node: signal, requeue, resume and arrays as they really are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
START = ROOT / "tests/slurm/start"
MISSING = [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if not shutil.which(name)]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a Slurm"),
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}; `tests/slurm/start install` has Debian's"),
]
STEPS = 40
FEW = (f"training.steps={STEPS}", "callbacks.previews=false", "callbacks.tensorboard=false")
SLOW = """#!{python}
import os, sys, time
from medgen import cli
if "SLURM_RESTART_COUNT" not in os.environ:  # so slow that the signal comes first
    from medgen.trainer import Trainer
    step = Trainer.step
    Trainer.step = lambda *given: (time.sleep(4), step(*given))[1]
cli.main()
"""
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The slurm.conf of one that runs."""
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([START, folder], capture_output=True, text=True)
    try:
        assert started.returncode == 0, started.stderr
        yield started.stdout.strip()
    finally:
        subprocess.run([START, folder, "stop"])


@pytest.fixture
def job(slurm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """`job(*command)` runs what submits a job, in a folder whose `medgen` is slow at first, and gives the job's id."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/medgen").write_text(SLOW.format(python=sys.executable))
    (tmp_path / "bin/medgen").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", slurm)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # tensors depend on it
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    ids: list[str] = []

    def submit(*command: object) -> str:
        said = output(*command)
        ids.append(re.findall(r"Submitted batch job (\d+)", said)[0])
        return ids[-1]

    yield submit
    subprocess.run(["scancel", "--quiet", *ids])


def output(*command: object) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def state(job: str) -> str:
    """Its state and why it waits; empty when Slurm has forgotten it."""
    done = subprocess.run(["squeue", "-h", "-j", job, "-t", "all", "-o", "%T %r"], capture_output=True, text=True)
    return done.stdout.strip()


def wait_for(condition: Callable[[], bool], seconds: float, log: Path) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, log.read_text() if log.exists() else "it never started"
        time.sleep(0.2)


def ended(job: str) -> bool:
    return state(job).split(" ")[0] in ("", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_S5_a_job_that_meets_its_limit_goes_on_and_equals_one_that_did_not(
    devices: int, job: Callable[..., str], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    from medgen_builtins.commands.verify_resume import differences

    common = ("bravo_rflow", *tiny, *FEW, f"training.devices={devices}")
    asks = ("slurm.gpu=none", "slurm.cpus=1", "slurm.hours=0.05", "slurm.notice=60", "run.folder=of job {timestamp}")
    number = job("medgen", "slurm", *common, *asks, "--submit")
    log, folder = tmp_path / f"medgen-bravo_rflow-{number}.out", tmp_path / f"runs/of job {number}"
    output(sys.executable, "-m", "medgen", "train", *common, "run.dir=whole")
    wait_for(lambda: state(number) == "PENDING BeginTime", 240, log)
    assert (folder / "latest.pt").exists(), log.read_text()
    assert f"stopped by SIGUSR1 at step {saved(folder)}, saved" in log.read_text()
    assert 0 < saved(folder) < STEPS
    assert "Exited with exit code 75" in log.read_text()
    # Slurm would wait for two minutes; and no second signal, however slow the machine
    output("scontrol", "update", f"JobId={number}", "StartTime=now", "TimeLimit=20")
    wait_for(lambda: ended(number), 150, log)
    assert state(number).startswith("COMPLETED"), log.read_text()
    assert saved(folder) == STEPS
    assert differences(tmp_path / "whole", folder) == []


def saved(folder: Path) -> int:
    """The step of its newest checkpoint."""
    from medgen import checkpoint

    return int(checkpoint.load(folder / "latest.pt")["position"]["step"])


def test_S5_a_job_that_is_cancelled_saves_and_stays_away(
    job: Callable[..., str], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    words = ("bravo_rflow", *tiny, *FEW, "run.dir=a run")
    number = job("sbatch", "--gpus-per-node=0", "--cpus-per-task=1", ROOT / "slurm/train.slurm", *words)
    log = tmp_path / f"medgen-{number}.out"
    wait_for(lambda: log.exists() and "run      a run" in log.read_text(), 60, log)
    time.sleep(3)
    output("scancel", number)
    wait_for(lambda: ended(number), 60, log)
    assert state(number).startswith("CANCELLED")
    assert f"stopped by SIGTERM at step {saved(tmp_path / 'a run')}, saved" in log.read_text()


def test_S5_an_array_of_jobs_of_two_tasks_makes_the_pairs_that_one_process_would(
    job: Callable[..., str], trained: Path, tmp_path: Path
) -> None:
    models = ("--seg-model", trained / "seg", "--image-model", trained / "bravo")
    words = (*models, "--num-images", 12, "--max-area", 1, "--steps", 2, "--batch-size", 3)
    asks = ("--array=1-2", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1")
    number = job("sbatch", *asks, ROOT / "slurm/generate.slurm", *words, "--output-dir", "parts of it")
    wait_for(lambda: not output("squeue", "-h", "-j", number), 90, tmp_path / f"medgen-generate-{number}.out")
    output(sys.executable, "-m", "medgen", "generate", *words, "--output-dir", "whole")
    assert len(list((tmp_path / "whole/train").iterdir())) == 12
    assert files(tmp_path / "parts of it") == files(tmp_path / "whole")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
