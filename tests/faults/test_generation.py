"""Generation goes on: whatever ends it, the same command leads to the same bytes.

Covers: medgen.generation.indices, medgen.data.scans.manifest_lines, medgen.run.versions.
"""

from __future__ import annotations

import json
import random
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.dying import die_at, die_in_the_middle_of_a_line, go_no_further, signal_at
from faults.forkserver import HANG, Child, Server
from faults.variants import SMALL

from medgen.data.store.nifti_writer import packed
from medgen.generation import generator, masks, pair_format
from medgen.generation.indices import Indices
from medgen.generation.manifest import Manifest
from medgen.run import checkpoint

Run = Callable[..., Any]
Files = dict[str, bytes]
COUNT = 12
BATCH = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(tmp_path_factory.mktemp("logs"))


@pytest.fixture(
    scope="module",
    params=["slices", pytest.param("volumes", marks=pytest.mark.slow)],
)
def trained(
    request: pytest.FixtureRequest,
    trained: Path,
    train: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with `seg`, `bravo` and `dual`: of slices, or of crops of volumes, so that pairs are made in tiles."""
    if request.param == "slices":
        return trained
    folder = tmp_path_factory.mktemp("volumes")
    given = ("data.patch_size=8", "data.lesion_patches=0.5", "training.steps=4", *SMALL)
    numbers = 'mode.bravo.numbers=["place"]'
    for mode, more in (("seg", ()), ("bravo", (numbers,)), ("dual", ())):
        train(folder / mode, f"{mode}_rflow_3d", (*given, *more))
    return folder


def command(trained: Path, out: Path, count: int = COUNT, *more: object) -> list[str]:
    """Of a folder with a mask model and an image model, or of a joint model's run."""
    models: tuple[object, ...] = ("--image-model", trained)
    if (trained / "seg").exists():
        models = (
            "--seg-model",
            trained / "seg/latest.pt",
            "--image-model",
            trained / "bravo/latest.pt",
        )
    options = (
        "--max-area",
        1,
        "--steps",
        2,
        "--batch-size",
        BATCH,
        "--inside",
        "off",
        "--no-audit",
    )
    return [
        str(each)
        for each in (
            "generate",
            *models,
            "--num-images",
            count,
            "--output-dir",
            out,
            *options,
            *more,
        )
    ]


def files(folder: Path) -> Files:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pair_folders(out: Path) -> list[Path]:
    return sorted((out / "train").glob("syn_*"))


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(server: Server, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """What `command` writes if nothing disturbs it."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert server.run(*command(trained, out)).code == 0
    return files(out)


def wait_for_pairs(child: Child, out: Path, more: int) -> None:
    wanted, limit = len(pair_folders(out)) + more, time.monotonic() + HANG
    while len(pair_folders(out)) < wanted and child.process.is_alive():
        assert time.monotonic() < limit, "no pairs were made"
        time.sleep(0.001)


# Killed


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.row("G1")
def test_many_kills_and_resumes_end_with_the_bytes_of_an_undisturbed_run(
    server: Server, trained: Path, tmp_path: Path, kills: int
) -> None:
    kill_often(server, trained, tmp_path, kills)


@pytest.mark.slow
@pytest.mark.row("G1")
def test_kills_of_a_model_of_image_and_mask_end_with_the_same_bytes_too(
    server: Server, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    joint = tmp_path / "joint"
    given = ("train", "joint_rflow", *tiny, *SMALL, "training.steps=4", f"run.dir={joint}")
    assert server.run(*given).code == 0
    kill_often(server, joint, tmp_path, 20)


@pytest.mark.slow
@pytest.mark.row("G1")
def test_kills_of_models_that_are_given_numbers_end_with_the_same_bytes_too(
    server: Server, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "trained"
    for mode in ("seg", "bravo"):
        numbers = f'mode.{mode}.numbers=["position", "lesion_size"]'
        given = ("train", f"{mode}_rflow", *tiny, *SMALL, numbers, "training.steps=4")
        assert server.run(*given, f"run.dir={folder / mode}").code == 0
    kill_often(server, folder, tmp_path, 20)


@pytest.mark.slow
@pytest.mark.row("G1")
def test_kills_of_models_of_volumes_in_latents_end_with_the_same_bytes_too(
    server: Server, tiny: tuple[str, ...], autoencoder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "trained"
    latent = ("space=latent", "space.latent.factor=2", "mode=bravo", "training.batch_size=2",
              f"space.latent.checkpoint={autoencoder.parent / 'bravo_volumes.pt'}")  # fmt: skip
    for mode, given in (("seg", ()), ("bravo", latent)):
        words = ("train", f"{mode}_rflow_3d", *tiny, *SMALL, *given, "training.steps=2")
        assert server.run(*words, f"run.dir={folder / mode}").code == 0
    kill_often(server, folder, tmp_path, 20)


def kill_often(server: Server, trained: Path, tmp_path: Path, kills: int) -> None:
    out, chance, count = tmp_path / "out", random.Random(1), 3 * kills + 6
    for _ in range(kills):
        child = server.start(*command(trained, out, count), hook=go_no_further, given=(3,))
        wait_for_pairs(child, out, chance.randint(0, 3))
        time.sleep(chance.uniform(0, 0.01))
        child.process.kill()
        assert child.wait().code == -signal.SIGKILL
    assert 0 < len(pair_folders(out)) < count
    assert server.run(*command(trained, out, count)).code == 0
    assert server.run(*command(trained, tmp_path / "whole", count)).code == 0
    assert files(out) == files(tmp_path / "whole")
    assert len(pair_folders(out)) == count


POINTS = [
    ("medgen.generation.pair_format:write_slice", 3, False),
    ("medgen.generation.pair_format:write_slice", 3, True),
    ("medgen.generation.manifest:Manifest.add", 2, False),
    ("medgen.generation.manifest:Manifest.add", 2, True),
    ("medgen.generation.pair_writer:_place", 2, True),
    ("medgen.system.files:replace", 1, False),
    ("medgen.system.files:replace", 2, False),
    ("medgen.system.files:replace", 3, False),
]


@pytest.mark.parametrize(
    "point", POINTS, ids=lambda point: f"{point[0].split(':')[1]}-{point[1]}-{point[2]:d}"
)
@pytest.mark.row("G2")
def test_a_pair_appears_as_a_whole_and_what_a_kill_left_is_swept(
    server: Server,
    trained: Path,
    tmp_path: Path,
    whole: Files,
    medgen: Run,
    point: tuple[str, int, bool],
) -> None:
    assert server.run(*command(trained, tmp_path), hook=die_at, given=point).code == 137
    listed = (
        {line["id"] for line in lines(tmp_path)[1:]}
        if (tmp_path / "manifest.jsonl").exists()
        else set()
    )
    for folder in pair_folders(tmp_path):
        assert {path.name for path in folder.iterdir()} == {"bravo.nii.gz", "seg.nii.gz"}
        assert folder.name in listed
    assert server.run(*command(trained, tmp_path)).code == 0
    assert files(tmp_path) == whole


@pytest.mark.row("G2")
def test_a_line_that_a_kill_tore_is_dropped(
    server: Server, trained: Path, tmp_path: Path, whole: Files
) -> None:
    assert server.run(*command(trained, tmp_path), hook=die_in_the_middle_of_a_line).code == 137
    assert not (tmp_path / "manifest.jsonl").read_bytes().endswith(b"\n")
    assert server.run(*command(trained, tmp_path)).code == 0
    assert files(tmp_path) == whole


@pytest.mark.row("G2")
def test_a_line_torn_by_one_process_does_not_spoil_that_of_another(tmp_path: Path) -> None:
    with Manifest.open(tmp_path, {"seed": 0}, {}) as manifest:
        (tmp_path / "manifest.jsonl").open("a").write('{"index": 1, "fi')
        manifest.add({"index": 2, "failed": True})
        manifest.sort()
        assert list(manifest.entries) == [2]
    assert [line.get("index") for line in lines(tmp_path)] == [None, 2]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
@pytest.mark.row("S1")
def test_a_signal_ends_generation_between_two_blocks_and_names_the_command_that_goes_on(
    server: Server, trained: Path, tmp_path: Path, whole: Files, number: int, code: int
) -> None:
    out = tmp_path / "a folder"
    ended = server.run(*command(trained, out), hook=signal_at, given=(number, 5))
    assert ended.code == code
    [line] = [line for line in ended.err.splitlines() if line.startswith("medgen: ")]
    assert len(pair_folders(out)) == 2 * BATCH
    words = shlex.split(line.split("Continue: ")[1])
    assert server.run(*words[1:]).code == 0
    assert files(out) == whole


# Retries


@pytest.mark.row("G3")
def test_a_mask_drawn_again_shifts_no_neighbour_in_whatever_block_it_is(
    trained: Path, tmp_path: Path, medgen: Run, whole: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = masks.ModelMasks._attempt

    def emptied(self: masks.ModelMasks, indices: range, attempt: int) -> torch.Tensor:
        made = draw(self, indices, attempt)
        for place, index in enumerate(indices):
            if index == 7 or (index == 4 and attempt < 3):
                made[place] = -1
        return made

    monkeypatch.setattr(masks.ModelMasks, "_attempt", emptied)
    ended = medgen(*command(trained, tmp_path), "--max-attempts", 4)
    assert ended.code == 12
    assert "1 of 12 masks" in ended.err
    assert "(indices 7; draws: 4 empty, 0 larger than 1 of the " in ended.err
    by_index = {line["index"]: line for line in lines(tmp_path)[1:]}
    assert {n: line["attempts"] for n, line in by_index.items() if line["attempts"] > 1} == {
        4: 3,
        7: 4,
    }
    assert by_index[7]["failed"]
    there = {name: data for name, data in files(tmp_path).items() if name.startswith("train/")}
    same = {
        n
        for n in range(COUNT)
        if there.get(f"train/syn_{n:05d}/bravo.nii.gz") == whole[f"train/syn_{n:05d}/bravo.nii.gz"]
    }
    assert same == set(range(COUNT)) - {4, 7}


# Split


@pytest.mark.parametrize(
    "parts", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 8))]
)
@pytest.mark.row("G4")
def test_any_split_in_any_order_gives_the_same_folder(
    trained: Path, tmp_path: Path, medgen: Run, whole: Files, parts: int
) -> None:
    order = random.Random(parts).sample(range(1, parts + 1), parts)
    made = []
    for part in order:
        assert medgen(*command(trained, tmp_path), "--shard", f"{part}/{parts}").code == 0
        made.append(len(pair_folders(tmp_path)))
    assert made == sorted(made)
    assert files(tmp_path) == whole


@pytest.mark.row("G4")
def test_parts_may_run_at_once_and_be_killed(
    server: Server, trained: Path, tmp_path: Path, whole: Files
) -> None:
    parts = [command(trained, tmp_path, COUNT, "--shard", f"{part}/3") for part in (1, 2, 3)]
    children = [server.start(*part) for part in parts]
    wait_for_pairs(children[1], tmp_path, 2)
    children[1].process.kill()
    assert [children[n].wait().code for n in (0, 2)] == [0, 0]
    children[1].process.join()
    assert server.run(*parts[1]).code == 0
    assert files(tmp_path) == whole


@pytest.mark.row("G4")
def test_parts_are_whole_blocks_disjoint_and_complete() -> None:
    parts = [Indices(100, 7, part, 8) for part in range(1, 9)]
    assert sorted(index for part in parts for index in part) == list(range(100))
    blocks = [{index // 7 for index in part} for part in parts]
    assert sum(map(len, blocks)) == len(set.union(*blocks)) == 15


@pytest.mark.row("G4")
def test_two_processes_never_make_the_same_block(
    server: Server, trained: Path, tmp_path: Path, whole: Files
) -> None:
    manifest = Manifest.open(tmp_path, *identity(whole))
    with manifest as held, held.block(1):
        ended = server.run(*command(trained, tmp_path))
    assert ended.code == 10
    assert "another process makes block 1" in ended.err
    assert server.run(*command(trained, tmp_path)).code == 0
    assert files(tmp_path) == whole


def identity(whole: Files) -> tuple[dict[str, Any], dict[str, Any]]:
    header = json.loads(whole["manifest.jsonl"].splitlines()[0])
    made_with = {key: header.pop(key) for key in ("versions", "device", "audit") if key in header}
    return header, made_with


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
@pytest.mark.row("G4")
def test_a_shard_that_does_not_exist_is_refused(
    trained: Path, tmp_path: Path, medgen: Run, shard: str
) -> None:
    ended = medgen(*command(trained, tmp_path), "--shard", shard)
    assert ended.code == 2
    assert "such as 3/8" in ended.err


# What is there already


@pytest.fixture
def out(whole: Files, tmp_path: Path) -> Path:
    """A folder with pairs."""
    for name, data in whole.items():
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--seed", 1, "seed: 0 -> 1"),
        ("--steps", 3, "steps: 2 -> 3"),
        ("--batch-size", 4, "batch_size: 3 -> 4"),
        ("--max-area", 0.5, "max_area: 1.0 -> 0.5"),
        ("--max-attempts", 3, "max_attempts: 10 -> 3"),
        ("--image-model", "dual/latest.pt", "image_model: "),
        ("--seg-model", "COHORT", "seg_folder: None -> "),
    ],
)
@pytest.mark.row("G5")
def test_pairs_made_differently_are_refused_and_left_alone(
    trained: Path,
    cohort: Path,
    out: Path,
    medgen: Run,
    whole: Files,
    option: str,
    value: object,
    told: str,
) -> None:
    if value == "COHORT":
        value = cohort
    elif option.endswith("-model"):
        value = trained / str(value)
    ended = medgen(*command(trained, out), option, value)
    assert ended.code == 4
    assert told in ended.err
    assert ended.err.count("medgen: ") == 1
    assert files(out) == whole


@pytest.mark.row("G5")
def test_a_damaged_file_is_made_again_and_what_is_not_ours_is_left_alone(
    trained: Path, out: Path, medgen: Run, whole: Files
) -> None:
    foreign = {
        "notes.txt": b"a",
        "train/.tmp-mine": b"b",
        "train/syn_00001/notes.txt": b"c",
        "train/Mets_1/x.nii.gz": b"d",
    }
    for name, data in foreign.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(data)
    (out / "train/syn_00001/bravo.nii.gz").write_bytes(b"damaged")
    (out / "train/syn_00004/seg.nii.gz").unlink()
    shutil.rmtree(out / "train/syn_00006")
    assert medgen(*command(trained, out)).code == 0
    assert files(out) == whole | foreign


@pytest.mark.row("G5")
def test_fewer_pairs_than_there_are_leave_all_there(
    trained: Path, out: Path, medgen: Run, whole: Files
) -> None:
    assert medgen(*command(trained, out, 5)).code == 0
    assert files(out) == whole


@pytest.mark.row("G5")
def test_pairs_without_a_manifest_are_not_taken_for_ours(
    trained: Path, out: Path, medgen: Run
) -> None:
    (out / "manifest.jsonl").unlink()
    before = files(out)
    ended = medgen(*command(trained, out))
    assert ended.code == 4
    assert "no manifest.jsonl" in ended.err
    assert files(out) == before


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"{}", b'{"index": 3', b'{"index": -1, "files": {}}', b'{"index": "3", "failed": true}',
     b'{"index": true, "failed": true}', b'{"index": 1, "files": {}}', b'{"index": 1, "files": {"../../x": "0"}}',
     b"[" * 9999, b"\xff\xfe", b"9" * 9999],
)  # fmt: skip
@pytest.mark.row("G5")
def test_a_manifest_with_a_line_that_is_none_of_ours_is_refused_and_kept(
    trained: Path, out: Path, medgen: Run, line: bytes
) -> None:
    rows = (out / "manifest.jsonl").read_bytes().splitlines()
    (out / "manifest.jsonl").write_bytes(b"\n".join([*rows[:3], line, *rows[3:], b""]))
    before = files(out)
    ended = medgen(*command(trained, out))
    assert ended.code == 4
    assert "manifest.jsonl:4:" in ended.err
    assert files(out) == before


@pytest.mark.row("G6")
def test_more_pairs_later_leave_the_first_untouched(
    trained: Path, out: Path, medgen: Run, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.glob("train/*/*")}
    assert medgen(*command(trained, out, COUNT + 5)).code == 0
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert medgen(*command(trained, tmp_path / "once", COUNT + 5)).code == 0
    assert files(out) == files(tmp_path / "once")


@pytest.mark.row("G8")
def test_a_checkpoint_that_was_replaced_is_refused(
    trained: Path, out: Path, medgen: Run, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    for name, source in {"seg": "seg/latest.pt", "bravo": "bravo/prev.pt"}.items():
        (models / name).mkdir(parents=True)
        shutil.copy(trained / source, models / name / "latest.pt")
    before = files(out)
    ended = medgen(*command(models, out))
    assert ended.code == 4
    assert "image_model: " in ended.err
    assert files(out) == before


@pytest.mark.row("G8")
def test_a_checkpoint_that_is_replaced_as_it_is_read_is_refused(
    trained: Path, tmp_path: Path, medgen: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained / "bravo", tmp_path / "models/bravo")
    shutil.copytree(trained / "seg", tmp_path / "models/seg")
    load = checkpoint.load

    def slow(path: Path) -> dict[str, Any]:
        state = load(path)
        shutil.copy(trained / "seg/prev.pt", path)
        return state

    monkeypatch.setattr(checkpoint, "load", slow)
    ended = medgen(*command(tmp_path / "models", tmp_path / "out"))
    assert ended.code == 4
    assert "was replaced as it was read" in ended.err


def test_a_pair_can_be_traced_and_made_again(
    trained: Path, out: Path, medgen: Run, tmp_path: Path
) -> None:
    from hashlib import sha256

    header, pair = lines(out)[0], lines(out)[8]
    assert header["image_model"] == sha256((trained / "bravo/latest.pt").read_bytes()).hexdigest()
    assert header["seg_model"] == sha256((trained / "seg/latest.pt").read_bytes()).hexdigest()
    assert {"seed", "steps", "batch_size", "max_area", "max_attempts", "versions", "device"} <= set(
        header
    )
    assert header["versions"]["medgen"]
    assert (
        pair["files"]["seg"]
        == sha256((out / "train" / pair["id"] / "seg.nii.gz").read_bytes()).hexdigest()
    )
    assert medgen(*command(trained, tmp_path / "again", pair["index"] + 1)).code == 0
    assert lines(tmp_path / "again")[8] == pair


def test_what_is_made_with_other_versions_says_so(
    trained: Path, out: Path, medgen: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "versions", lambda: {"medgen": "9"})
    ended = medgen(*command(trained, out, COUNT + 1))
    assert ended.code == 0
    assert "was begun with versions" in ended.err
    assert "versions" not in lines(out)[COUNT]
    assert lines(out)[COUNT + 1]["versions"] == {"medgen": "9"}


# Storage


@pytest.mark.row("K4")
def test_a_full_disk_is_one_line_and_leaves_only_whole_pairs(
    trained: Path, tmp_path: Path, medgen: Run, whole: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = pair_format.write_slice

    def full(path: Path, *rest: Any) -> None:
        if "syn_00004" in str(path) and path.name == "seg.nii.gz":
            raise OSError(28, "No space left on device")
        write(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(pair_format, "write_slice", full)
        ended = medgen(*command(trained, tmp_path))
    assert ended.code == 8
    assert ended.err.splitlines()[-1].startswith(
        f"medgen: {tmp_path}: No space left on device. Free space"
    )
    assert [path.name for path in (tmp_path / "train").iterdir() if path.name.startswith(".")] == []
    assert len(pair_folders(tmp_path)) == 4
    assert medgen(*command(trained, tmp_path)).code == 0
    assert files(tmp_path) == whole


@pytest.mark.row("K6")
def test_an_output_folder_that_cannot_be_one_is_one_line(
    trained: Path, tmp_path: Path, medgen: Run
) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file/below"):
        ended = medgen(*command(trained, out))
        assert ended.code == 8
        assert ended.err.splitlines()[-1].startswith(f"medgen: {out}: ")
        assert "Traceback" not in ended.err


def test_volumes_are_packed_with_a_header_that_no_version_of_python_changes() -> None:
    import gzip

    data = bytes(range(256)) * 40
    assert packed(data)[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    assert gzip.decompress(packed(data)) == data


def test_pairs_are_made_where_there_are_no_locks_no_links_and_no_rename_of_folders(
    trained: Path, tmp_path: Path, medgen: Run, whole: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Point 5: the same bytes, in two parts, and the rest after a stop; what is weaker is told once."""
    import errno
    import fcntl
    import os

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    for owner, name in ((fcntl, "flock"), (fcntl, "lockf"), (os, "link"), (Path, "rename")):
        monkeypatch.setattr(owner, name, refuse)
    first = medgen(*command(trained, tmp_path / "out", COUNT, "--shard", "2/2"))
    assert (first.code, first.err.count("this file system has no hard links, no locks")) == (
        0,
        1,
    ), first.err
    assert medgen(*command(trained, tmp_path / "out")).code == 0
    assert files(tmp_path / "out") == whole
