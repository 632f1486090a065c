"""What a run shows: previews, TensorBoard, lines in a log, metrics.jsonl; all of the same numbers.

Covers: medgen.pictures, medgen.run.metrics_file, medgen_builtins.callbacks.previews,
medgen_builtins.callbacks.progress, medgen_builtins.callbacks.tensorboard.
"""

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

    from medgen.cli.main import main

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
    from medgen_builtins.callbacks import _progress

    monkeypatch.setattr(_progress, "SILENT", 0.0)
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
    assert {
        event.step: pytest.approx(event.value) for event in events.Scalars("loss/val")
    } == validated
    names = {
        "learning_rate",
        "grad_norm",
        "images_per_second",
        "data_wait",
        "flops",
        "mfu",
        "memory_gb",
        "loss/train",
    }
    assert names <= set(events.Tags()["scalars"])
    assert {"previews/samples", "previews/trajectory"} <= set(events.Tags()["images"])
    assert "recipe/text_summary" in events.Tags()["tensors"]


def test_the_journal_has_a_line_for_each_step_and_each_validation(shown):
    folder, _ = shown
    journal = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in journal if "loss/train" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in journal if "loss/val" in line] == [3, 6]


def failing_events(patch, after):
    """Events cannot be written any more, as on a full disk."""
    import errno
    import os

    from tensorboard.summary.writer.record_writer import RecordWriter

    write, written = RecordWriter.write, []

    def full(self, data):
        written.append(data)
        if len(written) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    patch.setattr(RecordWriter, "write", full)


@pytest.mark.parametrize("after", [0, 5])
def test_events_that_cannot_be_written_are_told_and_training_goes_on(
    after, medgen, tiny, tmp_path, monkeypatch
):
    """Point 14: the thread that writes them neither ends the run nor prints a traceback."""
    failing_events(monkeypatch, after)
    options = (
        "callbacks.previews=false",
        "training.steps=4",
        "training.epoch_steps=4",
        "training.validate_every=0",
    )
    result = medgen("train", "bravo_rflow", *tiny, *options, f"run.dir={tmp_path / 'run'}")
    assert (result.code, "Traceback" in result.err) == (0, False), result.err
    assert (
        "tensorboard: cannot be written (No space left on device). Training goes on" in result.err
    )
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 4


def test_lines_that_a_full_disk_does_not_take_are_written_later(tmp_path, monkeypatch):
    """Point 14: none is lost, none is torn, and a checkpoint is not written before them."""
    import errno
    import os

    from medgen.errors import StorageError
    from medgen.run import metrics_file

    monkeypatch.setattr(metrics_file, "ENOUGH", 1)
    kept = metrics_file.MetricsFile(tmp_path / "metrics.jsonl")
    file = kept._file

    class Full:
        room = 30

        def write(self, data):
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done = file.write(data[: self.room])
            self.room = 0
            return done

    kept._file = Full()
    for step in range(3):
        kept.write(step, 1, {"loss/train": 0.5})
    with pytest.raises(StorageError, match=r"metrics\.jsonl: No space left"):
        kept.length()
    kept._file = file
    assert kept.length() == (tmp_path / "metrics.jsonl").stat().st_size
    kept.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
