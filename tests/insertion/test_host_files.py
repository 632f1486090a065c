"""A host keeps every bit but around its new lesions, however it is stored."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from insertion.made_up import AFFINE, head, write_heads
from scipy import ndimage

from medgen.data.scans.nifti import gate
from medgen.generation.insertion import setup
from medgen.generation.insertion.host_files import canonical, image_bytes
from medgen.generation.insertion.outputs import insert
from medgen.generation.insertion.paste import MARGIN

OBLIQUE = np.array([[0.998, 0.06, 0, 0], [-0.06, 0.998, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
KINDS = {
    "float32": (np.float32, 1.0, 0.0, "RAS", np.eye(4)),
    "int16 with a scale factor": (np.int16, 0.37, -5.0, "RAS", np.eye(4)),
    "uint8 with a scale factor": (np.uint8, 4.0, 0.0, "LAS", np.eye(4)),
    "float64, stored from the top": (np.float64, 1.0, 0.0, "LPI", np.eye(4)),
    "uint16, sagittal": (np.uint16, 1.0, 0.0, "ASL", np.eye(4)),
    "oblique": (np.int16, 1.0, 0.0, "PIR", OBLIQUE),
    "big-endian": (np.dtype(">i2"), 1.0, 0.0, "RAS", np.eye(4)),
}


def write_host(path: Path, kind: str) -> None:
    """A head as this kind of file, with text that names a patient in its header."""
    dtype, slope, inter, axes, turn = KINDS[kind]
    values, _ = head(7)
    stored = ((values - inter) / slope).astype(dtype)
    image = nib.Nifti1Image(stored, turn @ AFFINE)
    image = image.as_reoriented(nib.orientations.ornt_transform(
        nib.orientations.io_orientation(turn @ AFFINE), nib.orientations.axcodes2ornt(axes)
    ))  # fmt: skip
    image.header.set_data_dtype(dtype)
    image.header["descrip"] = b"Jane Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe 1970"))
    image.header["xyzt_units"] = 2
    data = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(data[:348]))
    header["scl_slope"], header["scl_inter"] = slope, inter
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(header.binaryblock + bytes(data[348:])))


@pytest.fixture(scope="module")
def donors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("donors"), range(4))


@pytest.mark.parametrize("kind", KINDS)
def test_outside_the_dilated_masks_every_stored_value_is_the_hosts(
    kind: str, donors: Path, tmp_path: Path
) -> None:
    path = tmp_path / "hosts/H1/flair.nii.gz"
    write_host(path, kind)
    insert(
        setup.with_paste(setup.Scans(tmp_path / "hosts", donors, None, ["data.workers=1"]), 3),
        range(1),
        tmp_path / "out",
    )
    made = {
        name: nib.load(tmp_path / f"out/train/syn_00000/{name}.nii.gz")
        for name in ("flair", "seg", "seg_new")
    }
    host, result = nib.load(path), made["flair"]
    before, after = host.dataobj.get_unscaled(), result.dataobj.get_unscaled()
    new = np.asarray(made["seg_new"].dataobj) > 0
    zooms = host.header.get_zooms()[:3]
    assert before.dtype == after.dtype
    assert new.any()
    far = ndimage.distance_transform_edt(~new, zooms) > MARGIN
    assert before[far].tobytes() == after[far].tobytes()
    assert (before[new] != after[new]).mean() > 0.9
    for name in (
        "dim",
        "pixdim",
        "datatype",
        "scl_slope",
        "scl_inter",
        "qform_code",
        "sform_code",
        "xyzt_units",
    ):
        np.testing.assert_array_equal(host.header[name], result.header[name])
    for each in made.values():
        np.testing.assert_array_equal(host.affine, each.affine)
        assert b"Jane" not in gzip.decompress(Path(each.get_filename()).read_bytes())
    np.testing.assert_array_equal(
        np.asarray(made["seg"].dataobj), new
    )  # this host had none of its own


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_lesion_the_data_are_the_hosts_byte_for_byte(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "h/flair.nii.gz"
    write_host(path, kind)
    raw = gate.read_raw(path)
    made = gzip.decompress(
        image_bytes(raw, raw.volume.data + 1, np.zeros(raw.volume.data.shape, bool))
    )
    original = gzip.decompress(path.read_bytes())
    assert (
        made[352:]
        == original[int(nib.load(path).header["vox_offset"]) or 352 :][-len(made[352:]) :]
    )
    assert len(made) - 352 == raw.voxels.nbytes


def test_a_value_that_the_file_cannot_hold_becomes_the_nearest_that_it_can(tmp_path: Path) -> None:
    path = tmp_path / "h/flair.nii.gz"
    write_host(path, "uint8 with a scale factor")
    raw = gate.read_raw(path)
    some = np.zeros(raw.volume.data.shape, bool)
    some[0, 0, :3] = True
    values = raw.volume.data.copy()
    values[0, 0, :3] = -100, 101.9, 1e6
    (tmp_path / "made.nii.gz").write_bytes(image_bytes(raw, values, some))
    stored = nib.load(tmp_path / "made.nii.gz").dataobj.get_unscaled()
    assert canonical(stored, raw.header)[0, 0, :3].tolist() == [0, 25, 255]
