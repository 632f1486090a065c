"""`medgen evaluate`: the card, its table, its page, and two cards beside each other.

Covers: medgen.cli.evaluate, medgen.evaluation.evaluate, medgen.evaluation.figures, medgen.evaluation.page,
medgen.evaluation.card_tables, medgen.evaluation.verdict.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import socket

import attrs
import numpy as np
import pytest
from data.cohort import write_cohort
from evaluation.test_samples import write_pairs
from made_up_heads import cohort as made_up

from medgen import FeaturesSettings
from medgen.cli.main import main
from medgen.evaluation import card as cards
from medgen.evaluation import card_tables, two_sample
from medgen.evaluation import evaluate as work
from medgen.evaluation.anatomy import SYMMETRY, UNEXPLAINED
from medgen.evaluation.figures import Figure
from medgen.evaluation.heads import heads_of
from medgen.evaluation.verdict import judge

QUICK = (
    "data.workers=1",
    "features.taught.steps=2",
    "features.taught.batch_size=4",
    "--features",
    "taught",
)
"""Options of a card on features that nobody would trust."""


@pytest.fixture(autouse=True, scope="module")
def short():
    """Classifiers of two steps, few draws."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_sample, "STEPS", 2)
        patch.setattr(work, "DRAWS", 20)
        yield


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("scans"), patients=9)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("made") / "pairs", 6)


@pytest.fixture(scope="module")
def written(scans, pairs, tmp_path_factory, short):
    """What was printed, a card, and its page."""
    folder, printed = tmp_path_factory.mktemp("card"), io.StringIO()
    paths = folder / "card.json", folder / "card.html"
    given = (
        "evaluate",
        scans,
        pairs,
        *QUICK,
        "--split",
        "all",
        "--output",
        paths[0],
        "--html",
        paths[1],
    )
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        main([str(each) for each in given])
    assert not ended.value.code
    return printed.getvalue(), *paths


def test_the_card_says_what_was_compared_and_each_figure_stands_beside_real_against_real(
    written, scans
):
    _, path, _ = written
    card = json.loads(path.read_text())
    # one of nine persons has no slice with as large a head as the pairs have
    assert (card["real"]["persons"], card["made"]["slices"]) == (8, 6)
    assert card["selection"]["grid"] == "16 px of 1.9 mm, axial"
    assert re.fullmatch(r"[0-9a-f]{16}(\+[0-9a-f]{16})?", card["extractors"]["taught"])
    assert card["versions"].keys() >= {"medgen", "torch", "python"}
    assert card["seed"] == 0
    assert str(scans) not in path.read_text()
    names = {each["name"] for each in card["figures"]}
    assert names >= {
        "KID",
        "FID",
        "precision",
        "recall",
        "density",
        "coverage",
        "AUC of a classifier",
    }
    for each in card["figures"]:
        assert each["low"] <= each["value"] <= each["high"], each
        assert each["reference_low"] <= each["reference"] <= each["reference_high"], each


def test_the_table_and_the_verdict_are_printed(written):
    printed, *_ = written
    assert "features: taught" in printed
    assert "KID" in printed
    assert "The pairs are" in printed
    assert (
        "control of obedience without a mask: not made, as the model that made the pairs is not at hand"
        in printed
    )
    assert printed.splitlines()[-1].endswith("card.html")


def test_the_page_needs_nothing_else_and_fits_a_phone_light_and_dark(written):
    page = written[2].read_text()
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"<(script|link|iframe)\b|@import|url\((?!#)", page)
    assert page.count("data:image/png;base64,") == 2
    assert page.count("<svg") == len(cards.read(written[1]).by_section())
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page
    assert not re.search("#0[1-9]0[1-9]0[1-9]", page)  # the plots' stand-ins for colours


def test_same_seed_same_card_and_page_without_any_socket(
    medgen, scans, pairs, written, tmp_path, monkeypatch
):
    def forbidden(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", forbidden)
    again = tmp_path / "again.json", tmp_path / "again.html"
    done = medgen(
        "evaluate", scans, pairs, *QUICK, "--split", "all", "--output", again[0], "--html", again[1]
    )
    assert done.code == 0, done.err
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written[1:]]


def test_a_card_read_again_is_the_same(written):
    card = cards.read(written[1])
    assert card.to_json() == written[1].read_text().rstrip("\n")


def changed(card, **parts):
    return json.dumps(json.loads(card) | parts)


def test_two_cards_are_a_table_and_refused_in_one_line_unless_measured_alike(
    medgen, written, tmp_path
):
    one, two = written[1], tmp_path / "two.json"
    two.write_text(one.read_text())
    both = medgen("evaluate", "--compare", one, two)
    assert both.code == 0, both.err
    assert "cannot be told" in both.out
    plain = json.loads(one.read_text())
    for part, key in (("selection", "grid"), ("extractors", "taught"), ("real", "fingerprint")):
        two.write_text(changed(one.read_text(), **{part: plain[part] | {key: "other"}}))
        refused = medgen("evaluate", "--compare", one, two)
        assert refused.code == 2
        assert len(refused.err.strip().splitlines()) == 1
        assert f"cannot be compared, as they differ in {part} {key}" in refused.err
        assert not refused.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--features", "tought"), 5, r"features\.tought: no such plugin, there are .*taught"),
        (("features.taught.steps=0",), 2, r"features\.taught\.steps: got 0, expected an integer"),
        (
            ("features.efficientnet.path=x",),
            2,
            r"sets features\.efficientnet, which is not used here \(used: taught\)",
        ),
        (("data.imagesize=3",), 2, r"data\.imagesize"),
        (
            ("--split", "val"),
            3,
            r"persons? have slices to compare with, expected at least 4|no slice with a lesion",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_exit_code(medgen, scans, pairs, arguments, code, message):
    given = [
        each
        for each in QUICK
        if not any(each.split("=")[0] == other.split("=")[0] for other in arguments)
    ]
    failed = medgen("evaluate", scans, pairs, *given, *arguments)
    assert failed.code == code, failed.err
    wrong = [
        line
        for line in failed.err.splitlines()
        if line.startswith("medgen: ") and "warning" not in line
    ]
    assert len(wrong) == 1
    assert re.search(message, wrong[0])


def test_what_is_no_card_is_refused(medgen, pairs, written):
    failed = medgen("evaluate", "--compare", written[1], pairs / "manifest.jsonl")
    assert (failed.code, failed.err.count("\n")) == (3, 1)
    assert "is no card. Give what `medgen evaluate --output` wrote." in failed.err


# Words


class Blind(FeaturesSettings):
    anatomy = False


class Knowing(FeaturesSettings):
    anatomy = True


def kid_of(name, value, low, high, reference=(0.0, -1.0, 1.0)):
    return Figure(f"features: {name}", "KID", value, low, high, *reference, "", "low")


@pytest.mark.parametrize(
    ("value", "low", "high", "word"),
    [
        (0.3, -0.5, 1.2, "like real patients"),
        (1.5, 1.2, 3.0, "far from real"),
        (9.0, 6.0, 12.0, "bad"),
    ],
)
def test_the_words_follow_the_distance_over_that_between_real_patients(value, low, high, word):
    verdict = judge([kid_of("k", value, low, high)], {"k": Knowing()})
    assert verdict.word == word
    assert word in verdict.text


def test_the_words_come_from_anatomy_before_photographs():
    figures = [kid_of("photos", 0.0, -0.5, 0.5), kid_of("heads", 90.0, 60.0, 120.0)]
    assert judge(figures, {"photos": Blind(), "heads": Knowing()}).word == "bad"
    assert "photos does not know heads" in judge(figures[:1], {"photos": Blind()}).text


def level_of(name, value, low, high, better="near"):
    return Figure("anatomy and intensity", name, value, low, high, 0.75, 0.70, 0.80, "", better)


@pytest.mark.parametrize(
    ("value", "low", "high", "word", "times"),
    [
        (0.50, 0.47, 0.57, "bad", (2.774, 1.8, 3.348)),  # mottled heads have no mirror image
        (0.70, 0.69, 0.698, "near real", (0.774, 0.52, 1.148)),
        (0.71, 0.67, 0.76, "like real patients", (0.674, 0.0, 1.348)),
        (0.85, 0.82, 0.87, "like real patients", (0.674, 0.28, 1.028)),  # a cohort can be so
        (0.97, 0.96, 0.98, "far from real", (1.154, 0.84, 1.468)),  # no cohort is that mirrored
    ],
)
def test_the_words_come_from_the_mean_of_what_is_known_of_anatomy(value, low, high, word, times):
    """Of KID, whose root is 0.55 (0 to 1.1), and of symmetry, 0.75 (0.70 to 0.80) in real heads."""
    kid = kid_of("k", 0.3, -0.5, 1.2)
    found = judge([kid, level_of(SYMMETRY, value, low, high)], {"k": Knowing()})
    assert (found.word, found.by) == (word, f"KID on k and {SYMMETRY}")
    assert (found.times, found.low, found.high) == pytest.approx(times, abs=0.001)
    assert f"By KID on k and mirror symmetry they are {found.times:.2g} times" in found.text


def test_less_to_explain_than_in_real_heads_is_no_fault():
    kid = kid_of("k", 0.3, 0.1, 1.2)
    less = level_of(UNEXPLAINED, 0.5, 0.4, 0.6, "low")
    assert judge([kid, less], {"k": Knowing()}).word == "like real patients"
    more = level_of(UNEXPLAINED, 0.95, 0.9, 1.0, "low")
    assert judge([kid, more], {"k": Knowing()}).word == "bad"


def test_what_any_extractor_tells_from_real_is_not_like_real_patients():
    figures = [kid_of("heads", 0.3, -0.5, 1.2), kid_of("photos", 9.0, 6.0, 12.0)]
    verdict = judge(figures, {"heads": Knowing(), "photos": Blind()})
    assert verdict.word == "near real"
    assert "but photos tells them apart" in verdict.text


def test_too_few_patients_give_no_words_of_praise():
    nan = math.nan
    unknown = kid_of("k", 0.1, nan, nan, (0.0, nan, nan))
    assert judge([unknown], {"k": Knowing()}).word == "not known"


def test_a_wider_interval_never_makes_a_worse_word():
    narrow, wide = (judge([kid_of("k", 1.4, low, 5.0)], {"k": Knowing()}) for low in (1.2, 0.5))
    assert (narrow.word, wide.word) == ("far from real", "like real patients")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (1.23456, "1.23"),
        (123.4, "123"),
        (0.0123, "0.0123"),
        (math.nan, "-"),
        (1e-7, "1.0e-07"),
    ],
)
def test_numbers_show_three_digits_that_count(value, shown):
    assert card_tables.number(value) == shown


def test_of_two_figures_the_better_is_named_only_where_intervals_do_not_overlap():
    one = kid_of("k", 2.0, 1.5, 2.5)
    two, close = (
        attrs.evolve(one, value=9, low=8, high=10),
        attrs.evolve(one, value=2.4, low=2, high=3),
    )
    assert card_tables.better(("a", "b"), one, two) == "a"
    assert card_tables.better(("a", "b"), two, one) == "b"
    assert card_tables.better(("a", "b"), one, close) == "cannot be told"


def test_slices_with_less_of_a_head_than_pairs_show_are_left_out():
    real, made = made_up(range(4)), made_up(range(4, 6))
    tops = attrs.evolve(real, images=np.where(np.arange(64)[:, None] < 26, real.images, -1.0))
    both = attrs.evolve(
        real,
        images=np.concatenate([real.images, tops.images]),
        masks=np.concatenate([real.masks] * 2),
        people=np.concatenate([real.people] * 2),
        position=np.concatenate([real.position] * 2),
        names=real.names * 2,
    )
    left = work._as_much_head(both, made)
    shares, least = heads_of(left.images).mean((1, 2)), heads_of(made.images).mean((1, 2)).min()
    assert shares.min() >= least
    assert len(left) >= len(real) / 2
    few = work._as_much_head(tops, made)
    assert len(few.persons) >= 3, "most persons stay, however little they show"
    assert len(few) >= len(tops) / 6
