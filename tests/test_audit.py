"""`medgen audit`: copies are set aside, never deleted and never made anew; `generate` ends with it.

Covers: medgen.cli.audit, medgen.evaluation.copies_picture, medgen.generation.pair_line,
medgen.generation.pair_audit.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from made_up_heads import SIDE, cohort, write_patients

from medgen.cli import _audit
from medgen.data.grid import Grid
from medgen.generation import pair_audit, pair_writer
from medgen.generation.generator import Generator
from medgen.generation.pair_format import AS_MADE

NEW, COPY, LESION = range(3), 3, 4


class Maker:
    """Gives slices of new persons, one flipped slice of a training person, and a new head with a copied lesion."""

    image = masks = None
    form = AS_MADE
    grid, batch_size = Grid.of_slices(SIDE, 1.0, "axial"), 8

    def __init__(self):
        training, new = cohort(range(6)), cohort(range(20, 24), 1)
        images, masks = (
            [*new.images[:3, 0], training.images[7, 0][::-1]],
            [*new.masks[:3], training.masks[7][::-1]],
        )
        host, lesion = new.images[3, 0].copy(), training.masks[21]
        host[lesion] = training.images[21, 0][lesion]
        self.images, self.lesions = [*images, host], [*masks, lesion]

    def identity(self):
        return {"seed": 0}

    def made_with(self):
        return {}

    def shown(self):
        return ("bravo",), ("seg",)

    def settled(self, pair):
        return pair

    def block(self, number):
        for index, (image, lesion) in enumerate(zip(self.images, self.lesions, strict=True)):
            channels = {"bravo": image, "seg": np.where(lesion, 1.0, -1.0)}
            yield pair_writer.Pair(index, [""], channels, frozenset({"seg"}))


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    return write_patients(tmp_path_factory.mktemp("scans"), cohort(range(6)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "out"
    pair_writer.generate(Maker(), range(5), out)
    return out


@pytest.fixture
def out(made, tmp_path):
    return shutil.copytree(made, tmp_path / "out")


def lines(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_copies_are_moved_and_told_of(out, patients, medgen):
    result = medgen("audit", out, "data.workers=1", "--against", patients)
    assert result.code == 11
    told = [
        line
        for line in result.err.splitlines()
        if line.startswith("medgen: ") and "warning" not in line
    ]
    what = "2 of 5 pairs are copies of training data, over a share of 0.01"
    assert len(told) == 1
    assert what in told[0]
    assert names(out / "train") == ["syn_00000", "syn_00001", "syn_00002"]
    assert names(out / "set_aside") == ["audit.png", "syn_00003", "syn_00004"]
    report = json.loads((out / "audit.json").read_text())
    assert (report["persons"], report["pairs"], report["copies"]) == (6, 5, 2)
    assert report["between_persons"]["low"] < report["nearest"]["high"]
    assert "distance to the nearest training slice, median: 0." in result.out
    assert "remembers" not in result.out
    assert {each["id"] for each in report["worst_first"][:2]} == {"syn_00003", "syn_00004"}
    marked = {line["index"]: line.get("set_aside") for line in lines(out)[1:]}
    assert marked == {0: None, 1: None, 2: None, 3: "copy of a slice", 4: "copy of a lesion"}
    assert lines(out)[4]["nearest"]["to"].startswith("patient 0, slice")
    assert lines(out)[0]["audit"]["persons"] == 6


@pytest.mark.parametrize(("distance", "remembers"), [(0.2, True), (0.5, False)])
def test_pairs_that_are_no_copies_but_nearer_than_persons_are_told_of(
    distance, remembers, tmp_path, capsys
):
    header = {"audit": {"between_persons": {"distance": 0.4, "low": 0.35, "high": 0.45}}}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(header) + "\n")
    rows = {n: {"nearest": {"distance": distance + n / 1000}} for n in range(9)}
    _audit._nearness(tmp_path, pair_audit.Audited(rows, {}))
    said = capsys.readouterr().out
    assert f"median: {distance + 0.004:.3f} (" in said
    assert "of a person to the others: 0.400 (0.350 to 0.450)" in said
    assert said.rstrip().endswith("the model remembers") == remembers


def test_what_is_set_aside_is_not_made_anew_nor_compared_again(out, patients, medgen, monkeypatch):
    medgen("audit", out, "data.workers=1", "--against", patients, "--limit", 0.5)
    before = (out / "manifest.jsonl").read_bytes()
    pair_writer.generate(Maker(), range(5), out)
    assert names(out / "train") == ["syn_00000", "syn_00001", "syn_00002"]
    monkeypatch.setattr("medgen.evaluation.copies.Judge", None)
    again = medgen("audit", out, "data.workers=1", "--against", patients)
    assert (again.code, "2 of 5 pairs are copies" in again.out) == (11, True)
    assert (out / "manifest.jsonl").read_bytes() == before


def test_a_share_below_the_limit_is_no_error_but_the_copies_are_moved(out, patients, medgen):
    assert medgen("audit", out, "data.workers=1", "--against", patients, "--limit", 0.4).code == 0
    assert {"syn_00003", "syn_00004"} < {*names(out / "set_aside")}


def test_a_copy_that_was_marked_by_a_process_that_was_killed_then_is_moved_by_the_next(out):
    with pair_audit.held(out, alone=True) as locks:
        pair_audit.amend(out, locks, {1: {"set_aside": "copy of a slice"}})
    pair_audit.move(out)
    assert names(out / "set_aside") == ["syn_00001"]
    pair_audit.move(out)
    assert "syn_00001" not in names(out / "train")


def test_a_folder_in_which_pairs_are_made_is_left_alone(out, patients, medgen):
    code = (
        "import sys, pathlib\nfrom medgen.generation.manifest import Manifest\n"
        "with Manifest.open(pathlib.Path(sys.argv[1]), {'seed': 0}, {}):\n    print(flush=True)\n    input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        result = medgen("audit", out, "--against", patients)
        other.communicate(b"\n")
    assert (result.code, "another process makes pairs here" in result.err) == (10, True)


def test_what_are_no_pairs_is_refused(tmp_path, patients, medgen):
    result = medgen("audit", patients, "--against", patients)
    assert (result.code, "holds no manifest.jsonl" in result.err) == (3, True)


def test_pairs_in_which_no_segmenter_finds_the_lesion_are_set_aside(out):
    class Judges:
        def per_pair(self, pairs):
            return np.array([0.1 if name == "syn_00002" else 0.8 for name in pairs.names])

    with pair_audit.held(out, alone=True) as locks:
        pair_audit.obey(out, locks, Judges, 0.5, range(4))
    assert names(out / "set_aside") == ["syn_00002"]
    assert [line.get("obedience") for line in lines(out)[1:]] == [0.8, 0.8, 0.1, 0.8, None]


def test_pairs_that_have_their_obedience_are_not_judged_again_but_set_aside_by_a_higher_limit(out):
    class Judges:
        def per_pair(self, pairs):
            return np.linspace(0.2, 0.8, len(pairs))

    def none():
        raise AssertionError("segmenters were taught for nothing")

    with pair_audit.held(out, alone=True) as locks:
        pair_audit.obey(out, locks, Judges, 0, range(4))
        assert [line.get("obedience") for line in lines(out)[1:]] == [0.2, 0.4, 0.6, 0.8, None]
        assert not (out / "set_aside").exists()
        pair_audit.obey(out, locks, none, 0.5, range(4))
    assert names(out / "set_aside") == ["syn_00000", "syn_00001"]


# At the end of generate


def generate(trained, out, *more, image=None):
    models = ("--seg-model", trained / "seg", "--image-model", image or trained / "bravo")
    options = ("--max-area", 1, "--steps", 2, "--batch-size", 2, "--inside", "off")
    return ("generate", *models, "--output-dir", out, *options, *more)


def contents(out):
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted((out / "train").rglob("*.gz"))
    }


def test_pairs_are_audited_where_they_are_made_and_are_the_same_without(trained, medgen, tmp_path):
    result = medgen(*generate(trained, tmp_path / "with", "--num-images", 4))
    assert result.code == 0, result.err
    assert "audit: 0 of 4 pairs are copies of training data" in result.out
    assert all("nearest" in line for line in lines(tmp_path / "with")[1:])
    assert (
        medgen(*generate(trained, tmp_path / "without", "--num-images", 4, "--no-audit")).code == 0
    )
    assert lines(tmp_path / "without")[0]["audit"] == {"done": False, "why": "--no-audit"}
    assert contents(tmp_path / "with") == contents(tmp_path / "without")
    assert medgen(*generate(trained, tmp_path / "without", "--num-images", 5)).code == 0
    assert lines(tmp_path / "without")[0]["audit"]["slices"] > 0


def test_without_the_training_data_one_line_says_so(trained, medgen, tmp_path):
    shutil.copy(trained / "bravo/latest.pt", tmp_path / "given.pt")
    result = medgen(
        *generate(trained, tmp_path / "out", "--num-images", 2, image=tmp_path / "given.pt")
    )
    assert result.code == 0
    assert (
        "audit: not done, the checkpoint does not lie in its run's folder: give --audit-against DATA\n"
        in result.out
    )
    assert lines(tmp_path / "out")[0]["audit"]["done"] is False


def test_one_pair_is_made_again_bit_for_bit(trained, medgen, tmp_path):
    medgen(*generate(trained, tmp_path / "all", "--num-images", 5, "--no-audit"))
    result = medgen(*generate(trained, tmp_path / "one", "--only", 3, "--no-audit"))
    assert result.code == 0, result.err
    whole = contents(tmp_path / "all")
    assert contents(tmp_path / "one") == {
        name: data for name, data in whole.items() if "syn_00003" in name
    }
    neither = medgen(*generate(trained, tmp_path / "none"))
    assert (neither.code, "--num-images, --only" in neither.err) == (2, True)


def test_a_pair_with_its_lesion_outside_its_head_is_drawn_again_and_no_other_changes(
    trained, medgen, tmp_path, monkeypatch
):
    medgen(*generate(trained, tmp_path / "off", "--num-images", 5, "--no-audit"))
    told = []

    def outside(self, channels):
        told.append(channels["bravo"])
        return 1.0 if len(told) == 3 else 0.0  # pair 2 at its first attempt

    monkeypatch.setattr(Generator, "outside", outside)
    on = ("--num-images", 5, "--no-audit", "--inside", "head")
    assert medgen(*generate(trained, tmp_path / "on", *on)).code == 0
    off, drawn = contents(tmp_path / "off"), contents(tmp_path / "on")
    changed = {name for name in off if off[name] != drawn[name]}
    assert changed
    assert all("syn_00002" in name for name in changed)
    assert lines(tmp_path / "on")[3]["attempts"] == 2
    assert [line.get("drawn_again") for line in lines(tmp_path / "on")[1:]] == [
        None,
        None,
        1,
        None,
        None,
    ]
    told.clear()
    monkeypatch.setattr(Generator, "outside", lambda *_: 1.0)
    failed = medgen(*generate(trained, tmp_path / "never", *on, "--max-attempts", 2))
    assert failed.code == 12
    assert "10 outside the head that was drawn for it (--inside head)" in failed.err


def test_each_line_says_how_large_the_lesion_is(made):
    lesions = [line["lesions"] for line in lines(made)[1:]]
    areas = [float(mask.sum()) for mask in Maker().lesions]
    assert [each["mm2"] for each in lesions] == areas
    assert all(each["count"] >= 1 and each["outside"] == 0 for each in lesions)


class Judges:
    """Finds every lesion but that of every second pair."""

    def per_pair(self, samples):
        return np.arange(len(samples)) % 2.0


def test_generate_sets_aside_what_a_segmenter_does_not_find(trained, medgen, tmp_path, monkeypatch):
    from medgen.evaluation import obedience

    monkeypatch.setattr(obedience, "fit", lambda settings, real: Judges())
    ended = medgen(*generate(trained, tmp_path / "out", "--num-images", 4, "--min-obedience", 0.5))
    assert ended.code == 0, ended.err
    assert "pairs below 0.5 are in" in ended.out
    rows = lines(tmp_path / "out")[1:]
    aside = [row["id"] for row in rows if row.get("set_aside") == "obedience below 0.5"]
    assert aside == names_of_pairs(tmp_path / "out/set_aside")
    assert {row["obedience"] for row in rows} == {0.0, 1.0}


def test_obedience_is_noted_in_each_line_where_it_is_asked_for(
    trained, medgen, tmp_path, monkeypatch
):
    from medgen.evaluation import obedience

    monkeypatch.setattr(obedience, "fit", lambda settings, real: Judges())
    for option, expected in (("--obedience", [0.0, 1.0]), ("--audit", [None, None])):
        ended = medgen(*generate(trained, tmp_path / option, "--num-images", 2, option))
        assert ended.code == 0, ended.err
        assert [row.get("obedience") for row in lines(tmp_path / option)[1:]] == expected
        assert not any(row.get("set_aside") for row in lines(tmp_path / option)[1:])
    given = ("--num-images", 2, "--obedience", "--no-audit")
    ended = medgen(*generate(trained, tmp_path / "out", *given))
    assert (ended.code, "--obedience: needs the training scans, which --no-audit" in ended.err) == (
        2,
        True,
    )


def test_obedience_without_training_scans_is_a_mistake(trained, medgen, tmp_path):
    options = ("--num-images", 2, "--min-obedience", 0.5)
    ended = medgen(*generate(trained, tmp_path / "out", *options, "--no-audit"))
    assert (ended.code, (tmp_path / "out").exists()) == (2, False)
    assert "--min-obedience: needs the training scans, which --no-audit leaves out." in ended.err
    shutil.copy(trained / "bravo/latest.pt", tmp_path / "given.pt")
    ended = medgen(*generate(trained, tmp_path / "out", *options, image=tmp_path / "given.pt"))
    assert (ended.code, len(lines(tmp_path / "out"))) == (2, 3)
    assert (
        "--min-obedience: needs the training scans, and the checkpoint does not lie in its run's"
        in ended.err
    )


def names_of_pairs(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())
