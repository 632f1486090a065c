"""Comparisons go on where they were killed, are the same on any number of processes, and say what they found.

Covers: medgen.evaluation.arm_results, medgen.evaluation.arms, medgen.evaluation.prove,
medgen.evaluation.prove_report.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluation.made_up import heads
from medgen_builtins.segmenters.small_unet import SmallUnet

from medgen.errors import DataError, RecipeError, StoppedError
from medgen.evaluation import arms, prove_report
from medgen.evaluation.arms import MIXED, PASTED, Comparison, arms_of, numbers_of, training_set
from medgen.evaluation.prove import prove, require_usable
from medgen.system.signals import Stop


def _given(steps: int = 8, base: int = 2, pairs: int = 3) -> Comparison:
    pool, test = heads(4, slices=2), heads(6, slices=2, seed=1, first=100)
    settings = SmallUnet(channels=(4, 8))
    return Comparison(
        settings, pool, test, heads(pairs, slices=2, seed=2), base, 4.0, steps, seed=0
    )


def _files(out):
    return {path.name: path.read_bytes() for path in sorted((out / "results").iterdir())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return prove({"": _given()}, out, segmenter="small_unet", repeats=2, workers=1), out


def test_a_comparison_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    whole, tmp_path, monkeypatch
):
    original, made = arms.run, []

    def killed(given, arm, repeat):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append((arm.name, repeat))
        return original(given, arm, repeat)

    monkeypatch.setattr(arms, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        prove({"": _given()}, tmp_path, segmenter="small_unet", repeats=2, workers=1)
    torn = sorted((tmp_path / "results").glob("*-0.json"))[0]
    torn.write_text(torn.read_text()[:40])
    made.clear()
    monkeypatch.setattr(arms, "run", lambda *given: made.append(given[1:]) or original(*given))
    proof = prove({"": _given()}, tmp_path, segmenter="small_unet", repeats=2, workers=1)

    assert len(made) == 2 * len(arms_of(4, 2)) - 4 + 1
    assert _files(tmp_path) == _files(whole[1])
    assert prove_report.to_json(proof) == prove_report.to_json(whole[0])


def test_a_signal_ends_it_between_two_segmenters_with_all_kept(tmp_path):
    stop = Stop("medgen prove x y")
    stop.reason = "SIGTERM"
    with pytest.raises(
        StoppedError, match=r"stopped by SIGTERM.*Continue: medgen prove x y"
    ) as raised:
        prove({"": _given()}, tmp_path, segmenter="small_unet", repeats=2, workers=1, stop=stop)
    assert raised.value.exit_code == 75
    assert len(list((tmp_path / "results").glob("*-0.json"))) == 1


def test_results_of_another_comparison_are_refused_by_name(whole):
    with pytest.raises(
        RecipeError, match=r"results of another comparison are there \(steps: 8 -> 9\)"
    ):
        prove({"": _given(steps=9)}, whole[1], segmenter="small_unet", repeats=2, workers=1)
    changed = _given()
    changed.pairs.masks[0] = ~changed.pairs.masks[0]
    with pytest.raises(RecipeError, match=r"\(pairs: [0-9a-f]{16} -> [0-9a-f]{16}\)"):
        prove({"": changed}, whole[1], segmenter="small_unet", repeats=2, workers=1)


@pytest.mark.slow
def test_two_processes_make_the_same_bytes_as_one(whole, tmp_path):
    prove({"": _given()}, tmp_path, segmenter="small_unet", repeats=2, workers=2)
    assert _files(tmp_path) == _files(whole[1])


def test_it_says_verdict_worth_and_that_it_is_no_nnunet(whole, tmp_path):
    proof, _ = whole
    said = " ".join(prove_report.sentences(proof))
    assert said.startswith(f"{proof.verdict.word}: real + pairs scores")
    assert "patients" in said
    assert "is not nnU-Net" in said
    assert prove_report.write(proof, tmp_path).read_bytes().startswith(b"\x89PNG")
    value = json.loads((tmp_path / "prove.json").read_text())
    assert set(value["scores"]) == {arm.name for arm in arms_of(4, 2)}
    assert {"lesion Dice, < 5 mm", "sensitivity, >= 10 mm"} <= set(value["scores"][MIXED])
    assert value["about"]["test_persons"] == 6
    assert prove_report.table(proof).row_count == len(value["scores"])


def test_arms_share_their_persons_and_nobody_is_tested_on():
    given = _given()
    mixed, pasted, real, fewer, synthetic = (
        training_set(given, arm, 1) for arm in arms_of(4, 2)[:5]
    )
    own = set(real.samples.people.tolist())
    assert len(own) == 2
    assert own <= set(given.pool.people.tolist())
    assert set(mixed.samples.people[: mixed.real].tolist()) == own
    np.testing.assert_array_equal(fewer.samples.images, real.samples.images)
    assert (mixed.real, mixed.added) == (pasted.real, pasted.added) == (len(real.samples), 6)
    assert synthetic.real == 0
    assert fewer.steps == round(8 * 4 / 10)


def test_pairs_are_at_most_so_many_times_the_real_slices():
    mixed = training_set(_given(pairs=30)._replace(times=2.0), arms_of(4, 2)[0], 0)
    assert (mixed.real, mixed.added) == (4, 8)


def test_the_curve_doubles_up_to_the_whole_pool():
    assert numbers_of(24, 4) == [2, 4, 8, 16, 24]
    assert numbers_of(16, 16) == [2, 4, 8, 16]
    assert numbers_of(5, 3) == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": 9}, r"--persons: is 9, expected 2 to 4"),
        ({"test": heads(1)}, r"a person is for training and for testing"),
        ({"test": heads(1, first=50)}, r"4 persons with lesions to train on and 1 to test on"),
        ({"pool": heads(2)}, r"2 persons with lesions to train on"),
    ],
)
def test_too_few_persons_are_refused(change, message):
    with pytest.raises((DataError, RecipeError), match=message):
        require_usable({"": _given()._replace(**change)})


def test_copies_pasted_take_no_lesion_from_outside_the_arm():
    given = _given()
    given.pool.images[:] = np.where(given.pool.masks[:, None], 0.9, given.pool.images)
    pasted = training_set(given, next(arm for arm in arms_of(4, 2) if arm.name == PASTED), 0)
    assert set(pasted.samples.people.tolist()) == set(pasted.samples.people[: pasted.real].tolist())
