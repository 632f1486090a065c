"""The slice store: what is read is what the scans hold, found again by content, made anew when it is damaged.

Covers: medgen.data.scans.nifti.alike, medgen.data.store.cache_folder, medgen.data.store.file_memo,
medgen.data.store.slice_store, medgen.data.store.store_building, medgen.data.store.store_index,
medgen.data.store.store_sources.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from data.cohort import make_patient, write_cohort, write_volume

from medgen.api.tables import DataSettings, MaskSettings
from medgen.api.values import Mode
from medgen.data.scans.layouts import mask_names
from medgen.data.store import cache_folder, file_memo, store_sources
from medgen.data.store import store as store_module
from medgen.data.store.loader import Loader
from medgen.data.store.slice_store import SliceStore
from medgen.data.store.store import open_store
from medgen.errors import DataError, RecipeError, StorageError

CHANNELS = ("bravo", "flair", "seg")
SIZE = 16


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def opened(root: Path, cache: Path, channels=CHANNELS, progress=None, **changes) -> SliceStore:
    settings = DataSettings(**{"root": root, "image_size": SIZE, "workers": 1, **changes})
    return open_store(settings, channels, mask_names(settings), progress, cache)


def stores(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


@pytest.fixture
def builds(monkeypatch) -> list[Path]:
    """The stores that were made, one entry per time."""
    made, build = [], store_module.build

    def counted(jobs, settings, folder, progress):
        made.append(folder)
        build(jobs, settings, folder, progress)

    monkeypatch.setattr(store_module, "build", counted)
    return made


# Reading


def test_images_and_masks_are_read_in_the_order_asked_for(cohort, cache):
    store = opened(cohort, cache)
    rows = store.select("train")[[5, 0, 3]]
    batch = store.read(rows, ("seg", "bravo"))
    assert batch.shape == (3, 2, SIZE, SIZE)
    assert batch.dtype == np.float16
    assert set(np.unique(batch[:, 0])) == {-1.0, 1.0}
    assert -1 <= batch[:, 1].min() < 0 < batch[:, 1].max() <= 1
    assert (
        batch == np.concatenate([store.read(rows[[n]], ("seg", "bravo")) for n in range(3)])
    ).all()


def test_the_lesion_of_the_made_up_scans_is_bright_where_the_mask_is(cohort, cache):
    store = opened(cohort, cache, lesion_only=True)
    bravo, seg = store.read(store.select("train"), ("bravo", "seg")).swapaxes(0, 1)
    tissue = bravo[(seg < 0) & (bravo > -1)]
    assert bravo[seg > 0].mean() > tissue.mean() + 0.5


def test_several_threads_read_the_same(cohort, cache):
    store = opened(cohort, cache)
    rows = store.select("train")
    expected = store.read(rows, CHANNELS)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: store.read(rows, CHANNELS), range(16)))
    assert all((result == expected).all() for result in results)


def test_no_rows_give_no_samples(cohort, cache):
    store = opened(cohort, cache, val_fraction=0.0)
    assert store.read(store.select("val"), CHANNELS).shape == (0, 3, SIZE, SIZE)


# Selecting


def test_both_splits_have_patients_of_their_own(cohort, cache):
    store = opened(cohort, cache, val_fraction=0.25)
    train, val = (set(store.patient[store.select(split)]) for split in ("train", "val"))
    assert (store.patients("train"), store.patients("val")) == (3, 1) == (len(train), len(val))
    assert not train & val


def test_slices_with_little_head_or_no_lesion_are_left_out(cohort, cache):
    store = opened(cohort, cache, min_foreground=0.3, lesion_only=True, min_lesion=3)
    rows = np.concatenate([store.select("train"), store.select("val")])
    used = np.isin(np.arange(len(store)), rows)
    assert (used == ((store.foreground >= 0.3) & (store.lesion_area["seg"] >= 3))).all()
    assert 0 < used.sum() < len(store)


def test_lesion_area_counts_the_pixels_of_the_stored_mask(cohort, cache):
    store = opened(cohort, cache)
    masks = store.read(np.arange(len(store)), ("seg",))
    assert (store.lesion_area["seg"] == (masks > 0).sum(axis=(1, 2, 3))).all()
    assert store.lesion_area["seg"].max() > 0


def test_labels_make_masks_of_their_own(tmp_path, cache):
    volumes = make_patient(np.random.default_rng(0), (20, 20, 10))
    labels = volumes["seg"] * 2
    labels[:10] *= 2
    write_volume(tmp_path / "p1" / "bravo.nii.gz", volumes["bravo"])
    write_volume(tmp_path / "p1" / "seg.nii.gz", labels)
    masks = {
        "left": MaskSettings(labels=[4]),
        "right": MaskSettings(labels=[2]),
        "both": MaskSettings(),
    }
    store = opened(tmp_path, cache, ("bravo", *masks), image_size=20, masks=masks)
    left, right, both = store.read(np.arange(len(store)), tuple(masks)).swapaxes(0, 1) > 0
    assert left.any()
    assert right.any()
    assert (both == (left ^ right)).all()


def test_excluding_every_training_slice_says_which_setting_did(cohort, cache):
    with pytest.raises(
        DataError, match=r"none of the \d+ training slices is used, data.min_foreground = 0.99 "
    ):
        opened(cohort, cache, min_foreground=0.99)


def test_asking_for_lesions_without_a_mask_is_a_mistake_of_the_recipe(cohort, cache):
    with pytest.raises(
        RecipeError,
        match=r"^data.lesion_only: is true, but no mask is among the channels \(bravo\)",
    ):
        opened(cohort, cache, ("bravo",), lesion_only=True)


# Finding again


def test_a_store_is_found_again_and_selecting_otherwise_makes_no_other(cohort, cache, builds):
    first = opened(cohort, cache)
    again = opened(cohort, cache)
    other = opened(cohort, cache, min_foreground=0.2, lesion_only=True, val_fraction=0.5)
    assert len(builds) == 1
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert len(other.select("val")) != len(first.select("val"))


@pytest.mark.parametrize(
    "change",
    [{"image_size": 12}, {"axis": "coronal"}, {"upper": 98.0}, {"channels": ("bravo", "seg")}],
)
def test_what_changes_the_slices_makes_another_store(cohort, cache, builds, change):
    opened(cohort, cache)
    opened(cohort, cache, **change)
    assert len(set(builds)) == 2


def test_the_content_decides_not_the_place_or_the_time(cohort, cache, tmp_path, builds):
    moved = shutil.copytree(cohort, tmp_path / "moved")
    assert opened(cohort, cache).fingerprint == opened(moved, cache).fingerprint
    assert len(builds) == 1


def test_a_scan_replaced_by_another_of_the_same_size_and_time_is_noticed(
    tmp_path, cache, builds, monkeypatch
):
    monkeypatch.setattr(file_memo, "SETTLED", -1.0)
    write_cohort(tmp_path / "scans", 2, channels=("bravo",))
    path = tmp_path / "scans" / "Mets_000" / "bravo.nii.gz"
    raw = path.with_name("bravo.nii")
    write_volume(raw, make_patient(np.random.default_rng(7), (20, 24, 10))["bravo"])
    path.unlink()
    opened(tmp_path / "scans", cache, ("bravo",))
    times = raw.stat()
    data = bytearray(raw.read_bytes())
    data[-2400 * 2 - 100 : -2400 * 2] = data[-2400 * 2 : -2400 * 2 + 100]
    raw.write_bytes(data)
    os.utime(raw, ns=(times.st_atime_ns, times.st_mtime_ns))
    opened(tmp_path / "scans", cache, ("bravo",))
    assert len(set(builds)) == 2


def test_files_that_did_not_change_are_not_read_again(cohort, cache, monkeypatch):
    monkeypatch.setattr(file_memo, "SETTLED", -1.0)
    opened(cohort, cache)
    monkeypatch.setattr(
        store_sources.stream, "digest", lambda path: pytest.fail(f"{path} was read again")
    )
    opened(cohort, cache)


@pytest.mark.parametrize("damage", ["missing array", "short array", "index"])
def test_a_damaged_store_is_made_again_with_a_warning(cohort, cache, builds, capsys, damage):
    expected = opened(cohort, cache).read(np.arange(5), CHANNELS)
    folder = builds[0]
    if damage == "missing array":
        (folder / "1").unlink()
    else:
        path = folder / ("1" if damage == "short array" else "index.npz")
        path.write_bytes(path.read_bytes()[:-100])
    again = opened(cohort, cache)
    assert (again.read(np.arange(5), CHANNELS) == expected).all()
    assert builds == [folder, folder]
    lines = [line for line in capsys.readouterr().err.splitlines() if str(folder) in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"medgen: warning: {folder}: the slice store is damaged (")


# Making


def test_several_processes_make_the_same_store(cohort, cache, tmp_path):
    one, two = opened(cohort, cache), opened(cohort, tmp_path / "other", workers=2)
    rows = np.arange(len(one))
    assert one.fingerprint == two.fingerprint
    assert (one.read(rows, CHANNELS) == two.read(rows, CHANNELS)).all()


def test_progress_is_told_twice_per_patient(cohort, cache):
    told: list[tuple[int, int]] = []
    opened(cohort, cache, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 8) for done in range(9)]


def test_nothing_on_disk_names_a_patient_or_a_path(cohort, cache, monkeypatch):
    monkeypatch.setattr(file_memo, "SETTLED", -1.0)
    opened(cohort, cache)
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {
        "digests.json",
        "heads.json",
        "index.npz",
        "0",
        "1",
        "2",
    }
    for path in files:
        assert not any(
            word in path.read_bytes() for word in (b"Mets", b"bravo", cohort.name.encode())
        )


def test_every_faulty_file_is_told_and_nothing_is_left_behind(tmp_path, cache):
    write_cohort(tmp_path / "scans", 3)
    broken = [
        tmp_path / "scans" / name for name in ("Mets_000/flair.nii.gz", "Mets_002/seg.nii.gz")
    ]
    for path in broken:
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError) as caught:
        opened(tmp_path / "scans", cache)
    assert [line.split(":")[0] for line in caught.value.lines] == list(map(str, broken))
    assert stores(cache) == []


def test_when_another_process_was_faster_its_store_is_used(cohort, cache, monkeypatch):
    rival: list[SliceStore] = []
    publish = cache_folder.publish

    def late(made, folder):
        shutil.copytree(made, folder)
        rival.append(folder.stat().st_ino)
        publish(made, folder)

    monkeypatch.setattr(cache_folder, "publish", late)
    store = opened(cohort, cache)
    assert len(store.select("train")) > 0
    assert [(cache / name).stat().st_ino for name in stores(cache)] == rival


def test_a_cache_that_cannot_be_written_is_told(cohort, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        StorageError, match=r"the slice store cannot be written .* set MEDGEN_CACHE"
    ):
        opened(cohort, tmp_path / "file" / "cache")


def test_the_cache_is_where_the_variable_says(cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_CACHE", str(tmp_path / "mine"))
    opened(cohort, None)
    assert len(stores(tmp_path / "mine")) == 1


def test_folders_of_builds_that_never_ended_are_removed(cohort, cache):
    for name, age in (("old", 2 * 24 * 3600), ("new", 0)):
        folder = cache / f".building-{name}"
        folder.mkdir(parents=True)
        then = folder.stat().st_mtime - age
        os.utime(folder, (then, then))
    opened(cohort, cache)
    assert [name for name in stores(cache) if name.startswith(".")] == [".building-new"]


def test_the_index_says_what_lies_around_the_head_of_each_patient_and_channel(tmp_path, cache):
    """Point 2: a word per patient and image channel, kept with the store; none for a mask."""
    cohort, rng = write_cohort(tmp_path / "cohort"), np.random.default_rng(0)
    head = np.linalg.norm(np.mgrid[-1:1:20j, -1:1:24j, -1:1:10j], axis=0) < 0.7
    noise = np.hypot(np.where(head, 300, 0), rng.rayleigh(5, head.shape)).astype(np.float32)
    path = next(cohort.rglob("flair.nii*"))
    write_volume(path, noise, (1, 1, 2))
    for store in (opened(cohort, cache), opened(cohort, cache)):
        words = [[word.decode() for word in row] for row in store.background]
        assert sorted({row[1] for row in words}) == ["constant", "noise"]
        assert {(row[0], row[2]) for row in words} == {("constant", "")}


def test_masks_that_fit_no_scan_are_one_line_with_the_count(tmp_path):
    """Issue 10, point 12: a wrong folder of masks was one line for every patient."""
    for number in range(5):
        image = np.zeros((8, 8, 4 + number))
        image[2:6, 2:6, 1:3] = np.random.default_rng(number).uniform(1, 2, (4, 4, 2))
        write_volume(tmp_path / f"scans/P{number}/bravo.nii.gz", image)
        write_volume(tmp_path / f"scans/P{number}/seg.nii.gz", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError) as caught:
        opened(tmp_path / "scans", tmp_path / "cache", ("bravo", "seg"))
    (line,) = caught.value.lines
    assert "P0/seg.nii.gz: has 8 x 8 x 3 voxels, but" in line
    assert "has 8 x 8 x 4, and 4 other files likewise. Resample" in line


def test_slices_know_whose_they_are_where_they_lie_and_how_large_their_lesions_are(tmp_path, cache):
    """Both visits of a person count as one; a view of a slice is of the slice's person."""
    for number, name in enumerate(("P01_visit1", "P01_visit2", "P02_visit1", "P03_visit1")):
        for channel, volume in make_patient(np.random.default_rng(number), (20, 24, 10)).items():
            write_volume(tmp_path / "root" / name / f"{channel}.nii.gz", volume)
    store = opened(tmp_path / "root", cache, min_foreground=0.02, val_fraction=0.0)
    loader = Loader(store, Mode(("bravo", "flair"), ("seg",), pooled=True), "train")
    facts = loader.facts(np.arange(loader.size))
    loader.close()
    rows = store.select("train").repeat(2)
    assert len(set(store.patient[rows])) == 4
    assert facts.person.tolist() == [[0, 0, 1, 2][patient] for patient in store.patient[rows]]
    assert facts.area.tolist() == (store.read(rows, ["seg"]) > 0).sum(axis=(1, 2, 3)).tolist()
    for person in range(4):
        place = facts.position[store.patient[rows] == person]
        assert 0 <= place.min() < place.max() <= 1
        assert np.all(np.diff(place) >= 0)
