"""Weights begin a model with further masks, images or numbers, which they do not know.

Covers: medgen.run.more_inputs.
"""

from __future__ import annotations

import pytest
import torch

from medgen.api.values import Mode
from medgen.run.more_inputs import widened
from medgen.run.shared_weights import SharedWeights, load_any

INSERT = """
[mode.insert]
images = ["bravo"]
[data]
crop = "lesions"
[strategy.rflow]
[space.pixel]
[network.unet]
[losses.mse]
[training]
steps = 1
"""
NUMBERS = INSERT.replace('images = ["bravo"]', 'images = ["bravo"]\nnumbers = ["contrast"]')
ONE = Mode(("bravo",), ("seg",), margin=4.0)


def weights(inputs: int, outputs: int = 4) -> dict[str, torch.Tensor]:
    torch.manual_seed(inputs)
    return {
        "first": torch.randn(outputs, inputs, 3, 3),
        "bias": torch.randn(outputs),
        "last": torch.randn(1, outputs, 3, 3),
    }


@pytest.mark.parametrize(
    ("recipe", "mode"),
    [
        (INSERT, ONE._replace(condition=("seg", "core", "rim"))),
        (INSERT, ONE._replace(images=("flair",), condition=("lesion",), numbers=("contrast",))),
        (NUMBERS, ONE._replace(numbers=("contrast", "lesion_size"))),
    ],
)
def test_further_masks_and_numbers_are_ignored_at_first(recipe: str, mode: Mode) -> None:
    theirs, mine = weights(2), weights(4)
    made = widened(SharedWeights(recipe, theirs, False), mine, mode)
    assert torch.equal(made["first"][:, :2], theirs["first"])
    assert not made["first"][:, 2:].any()
    assert made["bias"] is theirs["bias"]
    x = torch.randn(1, 4, 8, 8)
    with_more = torch.nn.functional.conv2d(x, made["first"])
    assert torch.allclose(
        with_more, torch.nn.functional.conv2d(x[:, :2], theirs["first"]), atol=1e-6
    )


def test_numbers_stay_behind_further_images() -> None:
    theirs, mine = weights(3), weights(5)
    mode = ONE._replace(condition=("seg", "tissue"), numbers=("contrast", "lesion_size"))
    made = widened(SharedWeights(NUMBERS, theirs, False), mine, mode)["first"]
    assert torch.equal(made[:, [0, 1, 3]], theirs["first"])
    assert not made[:, [2, 4]].any()


@pytest.mark.parametrize(
    ("recipe", "mode", "mine"),
    [
        # the places of crops come after the numbers
        (
            NUMBERS,
            ONE._replace(condition=("seg", "core"), numbers=("contrast", "place")),
            weights(7),
        ),
        (NUMBERS, ONE._replace(numbers=("lesion_size", "contrast")), weights(4)),
        (INSERT, ONE._replace(images=("bravo", "flair")), weights(4)),
        ("", ONE._replace(condition=("seg", "core")), weights(4)),  # of another program
        (INSERT, ONE, weights(2)),
        (INSERT, ONE._replace(condition=("seg", "core")), weights(4, outputs=6)),
    ],
)
def test_all_others_stay_as_they_are(
    recipe: str, mode: Mode, mine: dict[str, torch.Tensor]
) -> None:
    theirs = weights(2)
    assert widened(SharedWeights(recipe, theirs, False), mine, mode) is theirs


def test_a_recipe_with_parts_begins_from_the_weights_brain(medgen, tmp_path) -> None:
    medgen("data", "demo", tmp_path / "data", "--patients", 3)
    given = (
        f"data.root={tmp_path / 'data'}", f"run.dir={tmp_path / 'run'}", "training.steps=1",
        "training.learning_rate=1e-12", "training.batch_size=2", "callbacks.ema=false",
        "callbacks.previews=false", "training.precision=fp32", "data.val_fraction=0",
        'data.masks.seg={file="seg",labels=[1]}', 'data.masks.core={file="seg",labels=[1]}',
        'mode.insert.parts=["core"]', 'mode.insert.numbers=["contrast"]',
    )  # fmt: skip
    done = medgen("train", "demo_insert", *given)
    assert done.code == 0, done
    first = load_any(tmp_path / "run" / "latest.pt").weights["conv_in.conv.weight"]
    image, whole, core, contrast = first.split(
        [4, 4, 4, 1], dim=1
    )  # 2 x 2 px are folded into channels
    assert min(image.abs().max(), whole.abs().max()) > 0.01
    assert max(core.abs().max(), contrast.abs().max()) < 1e-6
