"""`medgen train`: what may be resumed, and what a dry run says that it keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result

Run = Callable[..., Result]


def test_the_newest_checkpoint_of_a_run_stands_for_its_folder(trained: Path, medgen: Run) -> None:
    ended = medgen("train", "--resume", trained / "bravo" / "latest.pt")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-2:] == ["already complete (step 4/4)", str(trained / "bravo")]


@pytest.mark.parametrize("name", ["best.pt", "prev.pt", "epoch_0001.pt"])
def test_another_checkpoint_is_refused_with_the_folder_and_the_key_to_give(
    name: str, medgen: Run, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"")
    ended = medgen("train", "--resume", tmp_path / name)
    assert ended.code == 4
    [line] = ended.err.splitlines()
    assert line.startswith(f"medgen: {tmp_path / name}: ")
    assert f"Use --resume {tmp_path}, or begin" in line
    assert line.endswith(f"with training.init_from={tmp_path / name}.")


def test_a_file_that_is_no_checkpoint_is_refused_as_one(medgen: Run, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("")
    ended = medgen("train", "--resume", tmp_path / "my.toml")
    assert (ended.code, ended.err.count("\n")) == (4, 1)
    assert "my.toml: is a file, expected the folder of a run." in ended.err


def test_a_dry_run_says_that_it_keeps_the_store_if_it_has_filled_it(
    medgen: Run, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDGEN_CACHE", str(tmp_path / "cache"))
    words = ("train", "bravo_rflow", *tiny, "training.steps=1", "--dry-run")
    said = [medgen(*words).out.splitlines()[-1] for _ in range(2)]
    assert said[0] == f"kept     the slice store, which training reads, in {tmp_path / 'cache'}"
    assert not said[1].startswith("kept")
    assert list((tmp_path / "cache").glob("slices-*"))
    assert "Keeps the slice store, and nothing else." in " ".join(
        medgen("train", "--help").out.split()
    )


def test_filling_the_store_counts_two_steps_per_patient_and_calls_them_so(
    medgen: Run, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDGEN_CACHE", str(tmp_path / "cache"))
    ended = medgen("data", "prepare", "bravo_rflow", *tiny)
    assert "slice store  8/8 steps, two per patient  100%" in ended.err
    assert [line.split()[-2] for line in ended.out.splitlines()] == ["3", "1"]
