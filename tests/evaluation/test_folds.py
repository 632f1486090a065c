"""Each person left out in turn: tested on, with pairs of their own folder, by all others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.cohort import write_cohort
from evaluation.made_up import heads
from evaluation.test_samples import write_pairs
from evaluation.test_unseen import inserted
from insertion.made_up import write_heads
from medgen_builtins.segmenters.small_unet import SmallUnet

from medgen.errors import DataError
from medgen.evaluation import arms, folds, sources
from medgen.evaluation.arms import Comparison
from medgen.evaluation.folds import Fold
from medgen.evaluation.prove import prove

LEFT_OUT = ["Mets_000", "Mets_002", "Mets_003"]
TINY = ["data.workers=1", "segmenters.small_unet.channels=[4,8]"]


@pytest.fixture
def given(tmp_path: Path) -> tuple[Path, Path]:
    """Four patients, and pairs made without each of three."""
    for count, name in enumerate(LEFT_OUT, 2):
        write_pairs(tmp_path / "pairs" / name, count)
    return write_cohort(tmp_path / "scans", 4), tmp_path / "pairs"


def read(given: tuple[Path, Path]) -> dict[str, Fold]:
    return folds.read_each_left_out(sources.real(str(given[0]), TINY[:1]), given[1])


def test_a_fold_tests_on_the_person_its_folder_is_named_after(given: tuple[Path, Path]) -> None:
    made = read(given)
    assert [*made] == LEFT_OUT
    assert [len(fold.pairs) for fold in made.values()] == [2, 3, 4]
    whole = next(iter(made.values()))
    everyone = {*whole.pool.persons.tolist(), *whole.test.persons.tolist()}
    assert len(everyone) == 4
    tested = [fold.test.persons.tolist() for fold in made.values()]
    assert tested == [[0], [2], [3]]
    for fold in made.values():
        assert {*fold.pool.persons.tolist()} == everyone - {*fold.test.persons.tolist()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda pairs: (pairs / "Mets_000").rename(pairs / "Mets_007"),
            "{}: Mets_007: no person of scans that is read has that name. Name each folder after the person left out "
            "of it: Mets_000, Mets_001, Mets_002, Mets_003.",
        ),
        (
            lambda pairs: [(pairs / name).rename(pairs.parent / name) for name in LEFT_OUT[1:]],
            "{}: has a folder of pairs for 1 of 4 persons. Make pairs without each in turn: Mets_000, Mets_001, "
            "Mets_002, Mets_003.",
        ),
        (
            lambda pairs: pairs.rename(pairs.parent / "elsewhere"),
            "{}: does not exist. Give the folder that has a folder of pairs for each person.",
        ),
        (
            lambda pairs: (pairs / "manifest.jsonl").touch(),
            "{}: is one folder of pairs. Give the folder that it lies in, named after who is left out, or drop "
            "--leave-one-out.",
        ),
        (
            lambda pairs: relabelled(pairs / "Mets_002"),
            "{}: Mets_002 has slices of flair, Mets_000 slices of bravo. Make all of them by the same recipe.",
        ),
    ],
    ids=["nobody's", "one", "missing", "of pairs", "other images"],
)
def test_other_folders_are_refused_in_a_line(
    given: tuple[Path, Path], change: Callable[[Path], Any], message: str
) -> None:
    change(given[1])
    with pytest.raises(DataError) as error:
        read(given)
    assert error.value.lines == [message.format(given[1])]


def relabelled(folder: Path) -> None:
    """Give pairs the name of another image."""
    for path in folder.rglob("bravo.nii.gz"):
        path.rename(path.with_name("flair.nii.gz"))
    listed = (folder / "manifest.jsonl").read_text()
    (folder / "manifest.jsonl").write_text(listed.replace("bravo", "flair"))


def test_folders_that_hold_no_pairs_do_not_matter(given: tuple[Path, Path]) -> None:
    (given[1] / ".ipynb_checkpoints").mkdir()
    (given[1] / "out" / "results").mkdir(parents=True)
    assert [*read(given)] == LEFT_OUT


def test_pairs_of_another_grid_have_real_slices_on_theirs(given: tuple[Path, Path]) -> None:
    shutil.rmtree(given[1] / "Mets_002")
    write_pairs(given[1] / "Mets_002", 3, spacing=1.5)
    for fold in read(given).values():
        assert fold.pool.grid.matches(fold.pairs.grid, 1e-6)
        assert fold.test.grid.matches(fold.pairs.grid, 1e-6)


def test_scans_that_show_the_person_left_out_are_refused(tmp_path: Path) -> None:
    write_heads(tmp_path / "real", range(4))
    (tmp_path / "pairs").mkdir()
    inserted(tmp_path / "pairs" / "P000", "P001", "P002")
    inserted(tmp_path / "pairs" / "P001", "P002", "P001")
    with pytest.raises(DataError, match=r"P001: 1 persons to test on are hosts or donors"):
        folds.read_each_left_out(sources.real(str(tmp_path / "real"), TINY[:1]), tmp_path / "pairs")


def test_scores_of_all_folds_are_taken_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fold's test persons score by its number; means, intervals and verdict are over all of them."""
    everyone, settings = heads(4, slices=2), SmallUnet(channels=(4, 8))
    left = {str(person): everyone.people == person for person in everyone.persons.tolist()}
    given = {
        name: Comparison(
            settings, everyone.take(~mine), everyone.take(mine), heads(2, slices=2, seed=2), 3, 4.0, 8, 0
        )
        for name, mine in left.items()
    }  # fmt: skip

    def run(fold: Comparison, arm: arms.Arm, repeat: int) -> dict[str, Any]:
        (person,) = fold.test.persons.tolist()
        score = 0.1 * person + (0.3 if arm.added == "pairs" else 0.0)
        names = arms.names_of_scores("slice")
        about = {"arm": arm.name, "repeat": repeat, "real": 6, "added": 4}
        return {**about, "scores": {name: [score] for name in names}}

    monkeypatch.setattr(arms, "run", run)
    proof = prove(given, tmp_path, segmenter="small_unet", repeats=2, workers=1)
    assert proof.means[arms.MIXED][arms.PRIMARY].value == pytest.approx(
        0.3 + 0.1 * np.mean(range(4))
    )
    assert proof.verdict.word == "helps"
    assert proof.verdict.gain == pytest.approx((0.3, 0.3, 0.3))
    assert proof.about | {"pool_persons": 3, "test_persons": 4, "folds": 4} == proof.about
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(left)


@pytest.mark.slow
def test_the_command_goes_on_and_says_what_pairs_of_four_patients_are_worth(
    medgen: Callable[..., Any], given: tuple[Path, Path], tmp_path: Path
) -> None:
    options = ["--leave-one-out", "--steps", "10", "--processes", "1"]
    asked = ["prove", *map(str, given), *TINY, *options]
    result = medgen(*asked)
    assert result.code == 0, result.err
    assert "wide intervals. Add patients." in " ".join(result.err.split())
    value = json.loads((tmp_path / "pairs-prove" / "prove.json").read_text())
    assert value["about"]["pairs"] == 2 + 3 + 4
    assert value["about"]["test_persons"] == 3
    assert value["verdict"] in ("helps", "no evidence", "hurts")
    assert medgen(*asked).code == 0
    refused = medgen(*asked, "--test-share", "0.5")
    assert refused.code == 2
    assert "--test-share has no effect" in refused.err
