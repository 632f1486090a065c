"""`medgen prove` and `medgen export --nnunet` on a tiny cohort, from the command line.

Covers: medgen.cli.export, medgen.cli.prove.
"""

from __future__ import annotations

import json

import pytest
from data.cohort import write_cohort
from evaluation.test_samples import write_pairs

TINY = ["data.workers=1", "data.val_fraction=0.3", "segmenters.small_unet.channels=[4,8]"]


@pytest.fixture
def given(tmp_path):
    return [
        str(write_cohort(tmp_path / "scans", 8)),
        str(write_pairs(tmp_path / "pairs", 6)),
        *TINY,
    ]


@pytest.mark.slow
def test_prove_writes_json_and_a_picture_and_says_what_the_pairs_are_worth(medgen, given, tmp_path):
    asked = ["prove", *given, "--steps", "10", "--seeds", "3", "--persons", "3", "--processes", "1"]
    result = medgen(*asked)
    assert result.code == 0, result.err
    out = tmp_path / "pairs-prove"
    value = json.loads((out / "prove.json").read_text())
    assert value["verdict"] in ("helps", "no evidence", "hurts")
    assert value["sentences"][0] in " ".join(result.out.split())
    assert result.out.rstrip().endswith("prove.png")
    assert (value["about"]["base"], value["about"]["pairs"]) == (3, 6)
    before = (out / "prove.json").read_bytes()
    assert medgen(*asked).code == 0
    assert (out / "prove.json").read_bytes() == before
    refused = medgen(*asked, "--seed", "1")
    assert refused.code == 2
    assert "results of another comparison are there" in refused.err


def test_export_says_which_folds_train_on_pairs_and_where_the_splits_belong(
    medgen, given, tmp_path
):
    real, pairs, *overrides = given
    asked = [
        "export",
        pairs,
        *overrides[:2],
        "--nnunet",
        str(tmp_path / "raw"),
        "--real",
        real,
        "--name",
        "Tiny",
    ]
    result = medgen(*asked)
    assert result.code == 0, result.err
    said = " ".join(result.out.split())
    assert (
        "train on pairs: the others validate persons whom the generator saw (--generator-saw train)."
        in said
    )
    assert "nnUNet_preprocessed/Dataset500_Tiny/" in said
    splits = json.loads((tmp_path / "raw" / "Dataset500_Tiny" / "splits_final.json").read_text())
    assert any(name.startswith("syn_") for name in splits[0]["train"])
    assert not any(name.startswith("syn_") for name in splits[-1]["train"])
    again = medgen(*asked)
    assert again.code == 2
    assert "is there already" in again.err


def test_export_of_pairs_alone_says_that_there_is_nothing_to_validate_on(medgen, given, tmp_path):
    result = medgen("export", given[1], "--nnunet", str(tmp_path / "raw"))
    assert result.code == 0
    assert "Train with `-f all`, or give --real." in result.out
