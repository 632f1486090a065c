"""A package from pip takes part like a built-in, and a broken one disturbs nobody."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HUBER = Path(__file__).parent / "medgen_huber"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """medgen_huber, installed with pip into a folder of its own, and a distribution whose module does not import."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copytree(HUBER, folder / "source")
    options = [
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
        "--target",
        folder / "site",
    ]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, folder / "source"], check=True
    )
    about = folder / "site" / "bad_import-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-import\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[medgen]\nbad = bad_import\n")
    (folder / "site" / "bad_import.py").write_text("import nosuch\n")
    return folder / "site"


def medgen(installed, *arguments):
    """The command in a process of its own, which finds what is installed as any process would."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200"}
    command = [sys.executable, "-m", "medgen", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_both_are_listed_with_their_distribution_and_the_broken_one_with_its_reason(installed):
    listed = medgen(installed, "plugins", "list")
    assert listed.returncode == 0, listed.stderr
    assert any(
        "huber" in line and "medgen-huber 1.0" in line for line in listed.stdout.splitlines()
    )
    assert any("bad-import 1.0" in line and "nosuch" in line for line in listed.stdout.splitlines())


def test_it_trains_beside_a_broken_one(installed, tiny, tmp_path):
    losses = ("losses.mse=false", "losses.huber.delta=0.2", "losses.huber.weight=2")
    options = (
        *tiny,
        *losses,
        "training.steps=2",
        "callbacks.previews=false",
        f"run.dir={tmp_path / 'run'}",
    )
    done = medgen(installed, "train", "bravo_rflow", *options)
    assert done.returncode == 0, done.stderr
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    assert line["loss/train"] == pytest.approx(2 * line["loss/huber"])


def test_what_needs_the_broken_one_ends_with_5(installed, tiny):
    done = medgen(installed, "train", "bravo_rflow", *tiny, "losses.bad.x=1", "training.steps=1")
    assert done.returncode == 5
    assert "nosuch" in done.stderr
    assert "Traceback" not in done.stderr
