"""Write `tests/evaluation/lesion_oracle.json`: what BraTS's own code says of the seeded cases.

    pip install brats-evaluation       # AGPL-3.0, with SimpleITK: in an environment of its own
    python tests/benchmarks/lesion_oracle.py --merged CHECKOUT

CHECKOUT is a clone of github.com/rachitsaluja/BraTS-2023-Metrics, the rule of 2023 and 2024.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np

EVALUATION = Path(__file__).parents[1] / "evaluation"
sys.path.insert(0, str(EVALUATION))
from lesion_cases import SHAPES, lesion_cases  # noqa: E402


def pairs(folder: Path, shape: tuple[int, ...]) -> list[tuple[str, str]]:
    """Write the cases as NIfTI files of label 3; slices with a third axis of 1."""
    written = []
    for number, both in enumerate(zip(*lesion_cases(0, 20, shape), strict=True)):
        names = []
        for kind, mask in zip("pt", both, strict=True):
            names.append(str(folder / f"{kind}{number}.nii.gz"))
            data = (mask if mask.ndim == 3 else mask[..., None]).astype(np.uint8) * 3
            nib.save(nib.Nifti1Image(data, np.eye(4)), names[-1])
        written.append((names[0], names[1]))
    return written


def matched(written: list[tuple[str, str]], folder: Path) -> dict[str, list[float]]:
    """BraTS since 2025, with the configuration of the metastases; all lesions count as large, so none is left out."""
    import pandas as pd
    from brats_evaluation.evaluation import evaluate_single_exam
    from brats_evaluation.metrics_parser import parse_mets_results
    from panoptica import Panoptica_Evaluator

    config = str(files("brats_evaluation") / "configs" / "config_mets.yaml")
    evaluator = Panoptica_Evaluator.load_from_config(config)
    rows = [
        evaluate_single_exam(p, t, str(number), evaluator) for number, (p, t) in enumerate(written)
    ]
    (folder / "rows.json").write_text(json.dumps({"metrics": rows, "missings": []}))
    parse_mets_results(str(folder / "rows.json"), 0.0, 0.1, str(folder / "table.csv"))
    table = pd.read_csv(folder / "table.csv")[: len(written)]
    columns = {
        "dice": "lesionwise_dsc_mean_et",
        "found": "large_instance_tp_et",
        "false": "all_instance_fp_et",
    }
    return {name: _plain(table[column]) for name, column in columns.items()} | {
        "pixel": _plain(table["global_dsc_et"])
    }


def merged(written: list[tuple[str, str]], dilation: int) -> dict[str, list[float]]:
    """BraTS 2023 and 2024, before it leaves out the smallest lesions."""
    from eval import get_LesionWiseScores

    rows = []
    for prediction, truth in written:
        _, _, false, found, lesions, pixel, *_ = get_LesionWiseScores(
            prediction, truth, "ET", dilation
        )
        count = len(lesions) + len(false)
        dice = sum(row[3] for row in lesions) / count if count else float("nan")
        rows.append((dice, len(found), len(false), pixel))
    return dict(
        zip(("dice", "found", "false", "pixel"), map(_plain, zip(*rows, strict=True)), strict=True)
    )


def _plain(values: object) -> list[float]:
    return [None if np.isnan(value) else round(float(value), 12) for value in values]  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--merged", type=Path, required=True)
    sys.path.insert(0, str(parser.parse_args().merged))
    known = {}
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            written = pairs(Path(folder), shape)
            known[f"{name} matched"] = matched(written, Path(folder))
            known |= {f"{name} merged {dilation}": merged(written, dilation) for dilation in (1, 3)}
    (EVALUATION / "lesion_oracle.json").write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
