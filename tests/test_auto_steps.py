"""`--steps auto`: the fewest steps that measure no worse, once per folder, and then the pairs of that number.

Covers: medgen.cli._auto_steps, medgen.generation.auto_steps.
"""

from __future__ import annotations

import json
from math import nan

import pytest
from data.cohort import write_cohort
from faults.forkserver import Server
from test_generate import files

from medgen.generation import auto_steps
from medgen.generation.auto_steps import Trial, fewest

SAMPLE = 16


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """More made-up patients than the models have seen, as a card needs four."""
    return write_cohort(tmp_path_factory.mktemp("people"), patients=8, channels=("bravo", "seg"))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    few()
    yield
    auto_steps.SAMPLE, auto_steps.CANDIDATES = 64, (5, 10, 20, 40)


def few() -> None:
    auto_steps.SAMPLE, auto_steps.CANDIDATES = SAMPLE, (2, 4)


def arguments(trained, people, out, steps="auto", count=5):
    models = ("--seg-model", trained / "seg", "--image-model", trained / "bravo")
    drawn = ("--max-area", 1, "--inside", "off", "--no-audit", "--batch-size", 8)
    against = ("--audit-against", people) if people else ()
    return (
        "generate",
        *models,
        "--num-images",
        count,
        "--output-dir",
        out,
        "--steps",
        steps,
        *drawn,
        *against,
    )


def header(out):
    return json.loads((out / "manifest.jsonl").read_text().splitlines()[0])


def pairs_of(out):
    return files(out / "train")


def trial(steps, kid, low=nan, high=nan, **more):
    return Trial(steps, SAMPLE, {"KID": (kid, low, high), **more})


def test_the_fewest_steps_within_the_interval_of_the_best_are_chosen():
    assert (
        fewest(
            [
                trial(5, 9.0, 8, 10),
                trial(10, 4.0, 3, 5),
                trial(20, 3.0, 2, 4.1),
                trial(40, 3.5, 2, 5),
            ]
        )
        == 10
    )
    assert fewest([trial(5, 4.2, 3, 5), trial(20, 3.0, 2, 4.1)]) == 20


def test_no_figure_may_be_worse_and_what_was_not_measured_is_not_chosen():
    few_lesions = [trial(5, 3.0, 2, 4, size=(9, 8, 9)), trial(20, 3.1, 2, 4, size=(1, 0, 2))]
    assert fewest(few_lesions) == 20
    assert fewest([Trial(5, 3, {}), trial(20, 3.0, 2, 4)]) == 20
    assert fewest([trial(5, nan), trial(20, nan)]) == 20
    assert fewest([Trial(5, 3, {}), Trial(20, 3, {})]) == 20
    assert fewest([trial(5, 1, 0, 2, size=(9, 8, 9)), trial(20, 5, 4, 6, size=(1, 0, 2))]) == 20


def test_pairs_are_those_of_the_number_and_the_manifest_says_how_it_was_chosen(
    trained, people, medgen, tmp_path
):
    result = medgen(*arguments(trained, people, tmp_path / "auto"))
    assert result.code == 0, result.err
    found = header(tmp_path / "auto")
    assert [row["steps"] for row in found["steps_auto"]["tried"]] == [2, 4, 25]
    assert all(
        len(row["KID on atlas"]) == len(row["lesion size, distance"]) == 3
        for row in found["steps_auto"]["tried"]
    )
    assert f"steps: {found['steps']}, the fewest that are no worse" in result.out
    given = medgen(*arguments(trained, None, tmp_path / "given", found["steps"]))
    assert given.code == 0, given.err
    assert pairs_of(tmp_path / "auto") == pairs_of(tmp_path / "given")
    medgen(*arguments(trained, people, tmp_path / "again"))
    assert files(tmp_path / "again") == files(tmp_path / "auto")


def test_a_folder_goes_on_with_its_number_and_measures_nothing(
    trained, people, medgen, tmp_path, monkeypatch
):
    """Neither once more pairs are asked for, nor where the first process was killed before its first pair."""
    out, chosen = tmp_path / "out", 4
    monkeypatch.setattr(auto_steps, "fewest", lambda trials: chosen)
    monkeypatch.setattr("medgen.generation.pair_writer.generate", lambda *_: None)
    assert medgen(*arguments(trained, people, out)).code == 0
    assert header(out)["steps"] == chosen
    monkeypatch.undo()
    monkeypatch.setattr(auto_steps, "try_steps", lambda *_: pytest.fail("measured again"))
    for count in (5, 9):
        result = medgen(*arguments(trained, None, out, count=count))
        assert (result.code, result.out.count("steps: 4, as in")) == (0, 1), result.err
    monkeypatch.undo()
    medgen(*arguments(trained, None, tmp_path / "given", chosen, 9))
    assert pairs_of(out) == pairs_of(tmp_path / "given")


def test_pairs_of_a_given_number_go_on_with_it(trained, medgen, tmp_path):
    assert medgen(*arguments(trained, None, tmp_path / "out", 3, 2)).code == 0
    result = medgen(*arguments(trained, None, tmp_path / "out", "auto", 4))
    assert result.code == 0, result.err
    assert header(tmp_path / "out")["steps"] == 3
    assert len(list((tmp_path / "out/train").iterdir())) == 4


def test_of_processes_that_begin_together_one_measures(trained, people, tmp_path):
    server, out = Server(tmp_path), tmp_path / "out"
    parts = [
        server.start(*arguments(trained, people, out, count=16), "--shard", f"{part}/2", hook=few)
        for part in (1, 2)
    ]
    ended = [each.wait() for each in parts]
    assert [each.code for each in ended] == [0, 0], ended
    assert sum(each.out.count("the fewest that are no worse") for each in ended) == 1
    assert sum(each.out.count("as in") for each in ended) == 1
    assert len(pairs_of(out)) == 32


REFUSED = {
    "no scans": (
        ("--image-model", "{moved}", "--seg-model", "{trained}/seg"),
        "medgen: --steps auto: needs real scans to compare with, but the checkpoint does not lie in its run's folder: "
        "give --audit-against DATA. Or give --steps N.",
    ),
    "no images": (
        ("--seg-model", "{trained}/seg"),
        "medgen: --steps auto: compares images, and no --image-model is given. Give --steps N.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_where_nothing_can_be_compared_one_line_says_so(name, trained, medgen, tmp_path):
    moved = tmp_path / "moved.pt"
    moved.write_bytes((trained / "bravo/latest.pt").read_bytes())
    given, line = REFUSED[name]
    models = [each.format(trained=trained, moved=moved) for each in given]
    out = tmp_path / "out"
    result = medgen("generate", *models, "--num-images", 2, "--output-dir", out, "--steps", "auto")
    assert (result.code, result.err.splitlines()) == (2, [line])
    assert not out.exists()


def test_a_word_that_is_no_number_is_refused(medgen, tmp_path):
    result = medgen("generate", "--output-dir", tmp_path, "--num-images", 1, "--steps", "few")
    assert result.code == 2
    assert "'few' is not a valid integer range" in result.err
