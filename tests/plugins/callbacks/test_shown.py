"""What a run shows: previews, TensorBoard, lines in a log, metrics.jsonl; all of the same numbers."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def shown(tmp_path_factory, cohort):
    """The folder of a short run, and what it printed."""
    import contextlib
    import io

    from conftest import TINY

    from medgen.cli import main

    folder = tmp_path_factory.mktemp("shown")
    options = (
        "training.steps=6",
        "training.epoch_steps=3",
        "callbacks.progress.every_steps=2",
        f"run.dir={folder / 'run'}",
    )
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setenv("MEDGEN_CACHE", str(folder / "cache"))
        with pytest.raises(SystemExit) as ended:
            main(["train", "bravo_rflow", f"data.root={cohort}", *TINY, *options])
    assert not ended.value.code
    return folder / "run", out.getvalue()


def test_a_log_has_a_line_of_fixed_fields_and_ends_with_where_the_result_is(shown):
    folder, out = shown
    lines = [line for line in out.splitlines() if line.startswith("step")]
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [1, 2, 4, 6]
    assert len({len(line.split()) for line in lines}) == 1
    assert out.splitlines()[-1] == str(folder)


def test_a_slow_device_is_never_silent_for_long(medgen, tiny, tmp_path, monkeypatch):
    from medgen_builtins.callbacks import progress

    monkeypatch.setattr(progress, "SILENT", 0.0)
    common = ("callbacks.previews=false", "training.steps=3", f"run.dir={tmp_path / 'run'}")
    result = medgen("train", "bravo_rflow", *tiny, *common)
    assert result.code == 0, result.err
    lines = [line for line in result.out.splitlines() if line.startswith("step")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]


def test_previews_are_pictures_of_something(shown):
    folder, _ = shown
    pictures = sorted((folder / "previews").glob("samples_*.png"))
    assert [path.stem for path in pictures] == ["samples_0000003", "samples_0000006"]
    assert np.asarray(Image.open(pictures[0])).std() > 5


def test_tensorboard_has_the_numbers_of_the_journal_the_pictures_and_the_recipe(shown):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = shown
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    journal = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    validated = {line["step"]: line["loss/val"] for line in journal if "loss/val" in line}
    assert {event.step: pytest.approx(event.value) for event in events.Scalars("loss/val")} == validated
    names = {"learning_rate", "grad_norm", "images_per_second", "data_wait", "flops", "mfu", "memory_gb", "loss/train"}
    assert names <= set(events.Tags()["scalars"])
    assert {"previews/samples", "previews/trajectory"} <= set(events.Tags()["images"])
    assert "recipe/text_summary" in events.Tags()["tensors"]


def test_the_journal_has_a_line_for_each_step_and_each_validation(shown):
    folder, _ = shown
    journal = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in journal if "loss/train" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in journal if "loss/val" in line] == [3, 6]
