"""Masks and images to files: the same bytes, whatever ran before.

Covers: medgen.cli.generate_types,
medgen.generation.generator, medgen.generation.manifest, medgen.generation.masks, medgen.generation.model,
medgen.generation.pair_writer.
"""

import gzip
import json
import shutil
import subprocess
import sys
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import torch

from medgen.data.grid import Grid
from medgen.data.scans.manifest_lines import Lines
from medgen.errors import StoppedError
from medgen.generation import pair_writer, workers
from medgen.generation.indices import Indices
from medgen.generation.manifest import Manifest, name_of
from medgen.generation.pair_format import AS_MADE
from medgen.run import checkpoint
from medgen.system.signals import Stop

AS_DRAWN = ("--inside", "off", "--no-audit")
"""After a few steps of training there is no head that a lesion could lie in."""


def arguments(trained, out, count=5, image="bravo"):
    models = (
        "--seg-model",
        trained / "seg/latest.pt",
        "--image-model",
        trained / image / "latest.pt",
    )
    limits = ("--max-area", 1, "--steps", 3, "--batch-size", 2, *AS_DRAWN)
    return ("generate", *models, "--num-images", count, "--output-dir", out, *limits)


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_twice_gives_the_same_bytes(trained, medgen, tmp_path):
    for name in ("one", "two"):
        assert medgen(*arguments(trained, tmp_path / name)).code == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(list((tmp_path / "one/train").iterdir())) == 5


def test_more_pairs_later_leave_the_first_alone_and_equal_all_at_once(trained, medgen, tmp_path):
    medgen(*arguments(trained, tmp_path / "grown", 3))
    medgen(*arguments(trained, tmp_path / "grown", 5))
    medgen(*arguments(trained, tmp_path / "whole", 5))
    assert files(tmp_path / "grown") == files(tmp_path / "whole")


def test_a_damaged_or_missing_file_is_made_again(trained, medgen, tmp_path):
    medgen(*arguments(trained, tmp_path / "out"))
    before = files(tmp_path / "out")
    (tmp_path / "out/train/syn_00001/bravo.nii.gz").write_bytes(b"damaged")
    (tmp_path / "out/train/syn_00003/seg.nii.gz").unlink()
    medgen(*arguments(trained, tmp_path / "out"))
    assert files(tmp_path / "out") == before


def test_pairs_made_differently_are_refused(trained, medgen, tmp_path):
    medgen(*arguments(trained, tmp_path / "out"))
    before = files(tmp_path / "out")
    result = medgen(*arguments(trained, tmp_path / "out"), "--seed", 1)
    assert result.code == 4
    assert "seed: 0 -> 1" in result.err
    assert files(tmp_path / "out") == before


def test_the_averaged_weights_are_what_generates(trained):
    state = checkpoint.load(trained / "bravo/latest.pt")
    model = pair_writer.load_model(trained / "bravo/latest.pt")
    weights = model.parts.network.state_dict()
    assert all(torch.equal(weights[name], state["averaged"][name]) for name in weights)
    assert any(not torch.equal(weights[name], state["network"][name]) for name in weights)


def test_an_invalid_mask_is_drawn_again_without_shifting_the_others(trained):
    seg = pair_writer.load_model(trained / "seg/latest.pt")
    indices = range(8)
    plain = pair_writer.ModelMasks(seg, 0, 3, 1.0, 1).block(indices)

    class Picky(pair_writer.ModelMasks):
        def fault(self, mask):
            return "empty" if torch.equal(mask, plain.values[2]) else ""

    picky = Picky(seg, 0, 3, 1.0, 4).block(indices)
    assert picky.faults == [["empty", ""] if n == 2 else [""] for n in indices]
    others = [n for n in indices if n != 2]
    assert torch.equal(picky.values[others], plain.values[others])
    assert not torch.equal(picky.values[2], plain.values[2])


def test_pairs_without_a_valid_mask_are_left_out_and_counted(trained, medgen, tmp_path):
    result = medgen(*arguments(trained, tmp_path / "out"), "--max-area", 0, "--max-attempts", 2)
    assert result.code == 12
    assert "5 of 5" in result.err
    lines = (tmp_path / "out/manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["failed"] for line in lines[1:]] == [True] * 5


def test_where_no_pair_was_written_the_limits_may_change(trained, medgen, tmp_path):
    failed = medgen(*arguments(trained, tmp_path / "out"), "--max-area", 1e-9, "--max-attempts", 2)
    assert failed.code == 12
    assert failed.err.rstrip().endswith(
        "Train the mask model longer, or raise --max-area or --max-attempts."
    )
    lines = (tmp_path / "out/manifest.jsonl").read_text().splitlines()
    assert all(sum(json.loads(line)["rejected"].values()) == 2 for line in lines[1:])
    assert medgen(*arguments(trained, tmp_path / "out")).code == 0
    medgen(*arguments(trained, tmp_path / "fresh"))
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_where_there_are_pairs_the_advice_is_another_folder(trained, medgen, tmp_path, monkeypatch):
    fault = pair_writer.ModelMasks.fault
    seen = []

    def second_too_large(self, mask):
        seen.append(mask)
        return "too_large" if len(seen) == 2 else fault(self, mask)

    monkeypatch.setattr(pair_writer.ModelMasks, "fault", second_too_large)
    result = medgen(*arguments(trained, tmp_path / "out", 2), "--max-attempts", 1)
    assert result.code == 12
    assert "draws: 0 empty, 1 larger than 1 of the slice)" in result.err
    assert result.err.rstrip().endswith(
        "raise --max-area or --max-attempts, in a new --output-dir."
    )


def test_limits_may_not_change_while_another_process_works_in_the_folder(trained, medgen, tmp_path):
    out = tmp_path / "out"
    code = (
        "import sys, pathlib\nfrom medgen.generation.manifest import Manifest\n"
        "with Manifest.open(pathlib.Path(sys.argv[1]), {'seed': 5}, {}):\n    print(flush=True)\n    input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        during = medgen(*arguments(trained, out))
        other.communicate(b"\n")
    assert (during.code, "seed: 5 -> 0" in during.err) == (4, True)
    assert medgen(*arguments(trained, out)).code == 0


def test_a_part_without_pairs_of_its_own_says_so(trained, medgen, tmp_path):
    result = medgen(*arguments(trained, tmp_path / "out", 2), "--shard", "2/2")
    assert result.code == 0
    assert result.out == "shard 2/2: nothing of its own: 2 pairs are one block of --batch-size 2\n"


def test_a_pair_is_a_dataset_with_fresh_headers(trained, medgen, tmp_path):
    medgen(*arguments(trained, tmp_path / "out", image="dual"))
    folder = tmp_path / "out/train/syn_00000"
    assert sorted(path.name for path in folder.iterdir()) == [
        "seg.nii.gz",
        "t1_gd.nii.gz",
        "t1_pre.nii.gz",
    ]
    image = nib.load(folder / "t1_gd.nii.gz")
    assert image.shape == (16, 16, 1)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert set(np.unique(nib.load(folder / "seg.nii.gz").dataobj)) <= {0, 1}
    assert (
        gzip.decompress((folder / "t1_gd.nii.gz").read_bytes())[148:228].rstrip(b"\0")
        == b"synthetic"
    )


def test_a_runs_folder_stands_for_its_newest_checkpoint(trained, medgen, tmp_path):
    models = ("--seg-model", trained / "seg", "--image-model", trained / "bravo")
    options = ("--num-images", 5, "--max-area", 1, "--steps", 3, "--batch-size", 2, *AS_DRAWN)
    assert medgen("generate", *models, *options, "--output-dir", tmp_path / "folders").code == 0
    assert medgen(*arguments(trained, tmp_path / "files")).code == 0
    assert files(tmp_path / "folders") == files(tmp_path / "files")


def test_masks_come_from_a_folder_too(trained, cohort, medgen, tmp_path):
    options = (
        "--seg-model",
        cohort,
        "--image-model",
        trained / "bravo/latest.pt",
        "--num-images",
        4,
        "--steps",
        2,
        *AS_DRAWN,
    )
    assert medgen("generate", *options, "--output-dir", tmp_path / "out").code == 0
    masks = [
        np.asarray(nib.load(path).dataobj) for path in (tmp_path / "out/train").glob("*/seg.nii.gz")
    ]
    assert len(masks) == 4
    assert all(mask.any() for mask in masks)


def test_masks_may_lie_side_by_side(trained, cohort, medgen, tmp_path):
    (tmp_path / "masks").mkdir()
    for path in cohort.glob("*/seg.nii.gz"):
        shutil.copy(path, tmp_path / "masks" / f"{path.parent.name}.nii.gz")
    for name, folder in {"side": tmp_path / "masks", "folders": cohort}.items():
        options = (
            "--seg-model",
            folder,
            "--image-model",
            trained / "bravo",
            "--num-images",
            4,
            "--steps",
            2,
        )
        options += AS_DRAWN
        result = medgen("generate", *options, "--output-dir", tmp_path / name)
        assert result.code == 0, result.err
    masks = [
        np.asarray(nib.load(path).dataobj)
        for path in (tmp_path / "side/train").glob("*/seg.nii.gz")
    ]
    assert len(masks) == 4
    assert all(mask.any() for mask in masks)


def test_a_folder_without_masks_gets_advice_that_generate_takes(trained, cohort, medgen, tmp_path):
    shutil.copytree(cohort, tmp_path / "scans", ignore=shutil.ignore_patterns("seg.nii.gz"))
    options = (
        "--seg-model",
        tmp_path / "scans",
        "--image-model",
        trained / "bravo",
        "--num-images",
        4,
    )
    result = medgen("generate", *options, "--output-dir", tmp_path / "out")
    assert result.code == 3
    assert "no patient has a file for seg" in result.err
    assert result.err.endswith(
        "Give a folder of mask files, or of patients whose files are named as in training.\n"
    )


def test_generated_pairs_train_a_model(trained, medgen, tmp_path, tiny):
    medgen(*arguments(trained, tmp_path / "out", 6))
    options = (
        *tiny,
        f"data.root={tmp_path / 'out'}",
        "data.min_foreground=0",
        "training.steps=1",
        f"run.dir={tmp_path}/run",
    )
    result = medgen("train", "bravo_rflow", *options)
    assert result.code == 0, result.err


def test_models_that_do_not_fit_together_are_named(trained, medgen, tmp_path):
    options = ("--num-images", 1, "--output-dir", tmp_path / "out")
    missing = medgen("generate", "--image-model", trained / "bravo/latest.pt", *options)
    assert missing.code == 2
    assert "the image model needs seg." in missing.err
    for image in ([], ["--image-model", trained / "seg"], ["--image-model", trained / "bravo"]):
        none = medgen("generate", *image, "--seg-model", trained / "bravo", *options)
        assert none.code == 2
        assert "--seg-model: makes bravo given seg, not masks. Give it as --image-model" in none.err
    wrong = medgen(
        "generate",
        "--image-model",
        trained / "bravo/latest.pt",
        "--seg-model",
        trained / "dual/latest.pt",
        *options,
    )
    assert wrong.code == 2
    assert "makes t1_pre, t1_gd given seg" in wrong.err


class Stub:
    """A generator of tiny images that asks to stop as it makes its third block."""

    image = masks = None
    form = AS_MADE
    grid, batch_size = Grid.of_slices(4, 1.0, "axial"), 16

    def __init__(self, stop):
        self.stop = stop

    def identity(self):
        return {"seed": 0}

    def made_with(self):
        return {}

    def shown(self):
        return (), ()

    def settled(self, pair):
        return pair

    def block(self, number):
        self.stop.reason = "SIGTERM" if number == 2 else None
        for index in range(number * self.batch_size, (number + 1) * self.batch_size):
            yield pair_writer.Pair(index, [""], {"bravo": np.full((4, 4), -1.0)}, frozenset())


def peak(work):
    """Bytes of Python objects that were held at most during a call."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_billion_pairs_take_no_more_memory_than_a_block(tmp_path, monkeypatch):
    """Issue 10, point 17: lists and sets of their indices took 6 GB before the first was made."""
    monkeypatch.setattr(pair_writer, "picture", lambda *_: None)
    stop = Stop("medgen generate")
    indices = Indices(10**9, Stub.batch_size, 1, 1)

    def begin():
        with pytest.raises(StoppedError):
            pair_writer.generate(Stub(stop), indices, tmp_path, stop)
        assert workers.processes(8, indices) == 8
        assert pair_writer.outcome(tmp_path, indices).failed == 0

    assert peak(begin) < 4 << 20
    assert len(list((tmp_path / "train").iterdir())) == 48
    stop.reason = None
    pair_writer.generate(Stub(stop), Indices(48, 16, 1, 1), tmp_path, stop)
    assert (stop.reason, len(Lines(tmp_path / "manifest.jsonl"))) == (None, 48)


def test_a_manifest_is_read_and_ordered_in_a_few_bytes_for_each_pair(tmp_path):
    """Issue 10, point 17."""
    count = 4_000
    lines = [
        {"index": n, "id": name_of(n), "files": {"bravo": "0" * 64, "seg": "0" * 64}}
        for n in range(count)
    ]
    lines[7] = {"index": 7, "failed": True, "rejected": {"empty": 3}}
    texts = [
        json.dumps(line) + "\n" for line in [*lines[count // 2 :], *lines[: count // 2], lines[9]]
    ]
    (tmp_path / "manifest.jsonl").write_text("".join(['{"seed": 0}\n', *texts]))

    def read():
        with Manifest.open(tmp_path, {"seed": 0}, {}) as manifest:
            assert list(manifest.entries) == list(range(count))
            assert manifest.entries[9] == lines[9]
        found = pair_writer.outcome(tmp_path, Indices(10**9, 16, 1, 1))
        assert found == (1, [7], {"empty": 3}, False)

    assert peak(read) < 200_000 + 150 * count
    text = (tmp_path / "manifest.jsonl").read_text()
    assert text == "".join(['{"seed": 0}\n', *(json.dumps(line) + "\n" for line in lines)])


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize(("total", "size"), [(1, 16), (16, 16), (33, 16), (100, 7), (6, 1)])
def test_indices_by_arithmetic_are_those_of_whole_blocks(total, size, parts):
    """Issue 10, point 17."""
    for part in range(1, parts + 1):
        expected = [index for index in range(total) if index // size % parts == part - 1]
        indices = Indices(total, size, part, parts)
        assert (list(indices), len(indices), bool(indices)) == (
            expected,
            len(expected),
            bool(expected),
        )
        assert [indices[place] for place in range(len(indices))] == expected
        assert [index in indices for index in range(-1, total + 2)] == [
            n in expected for n in range(-1, total + 2)
        ]
        assert indices[-3:] == expected[-3:]
        assert len(indices.blocks) == len({index // size for index in expected})


def test_more_pairs_than_there_are_names_for_are_refused(medgen, tmp_path):
    result = medgen("generate", "--num-images", 10**30, "--output-dir", tmp_path / "out")
    assert (result.code, "--num-images" in result.err, len(result.err.splitlines())) == (2, True, 1)
