"""What the gate lets through is what was written; everything else is named with its fault.

Covers: medgen.data.scans.nifti.gate, medgen.data.scans.nifti.geometry, medgen.data.scans.nifti.header,
medgen.data.scans.nifti.problems, medgen.data.scans.nifti.stream, medgen.data.scans.nifti.voxels.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from data.corpus import Case, changed, faulty, flipped, made_voxels, nifti, odd, turned, zipped

from medgen.data.scans.nifti import gate, stream, voxels
from medgen.errors import DataError

HEAD = np.random.default_rng(1).normal(100, 20, (24, 26, 16)).astype("f4")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return faulty(tmp_path_factory.mktemp("corpus"))


def write(folder: Path, raw: bytes, name: str = "scan.nii.gz") -> Path:
    path = folder / name
    path.write_bytes(raw)
    return path


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        gate.read(path)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_corpus_is_named_with_its_faults(corpus: list[Case]) -> None:
    """Each of more than 60 malformed files has exactly its own fault, with something to do about it."""
    assert len(corpus) > 60
    assert len({case.path for case in corpus}) == len(corpus)
    for path, words, mask, _ in corpus:
        (fault,) = gate.inspect(path, mask=mask).faults
        assert words in fault.what
        assert fault.fix


def test_corpus_raises_one_line_with_the_path(corpus: list[Case]) -> None:
    """`read` refuses what `inspect` faults, in one line that starts with the file, and nothing else escapes."""
    for path, words, mask, _ in corpus:
        with pytest.raises(DataError) as caught:
            gate.read(path, mask=mask)
        (line,) = caught.value.lines
        assert line.startswith(f"{path}: ")
        assert words in line
        assert line.endswith(".")
        assert "\n" not in line


def test_odd_files_are_read_with_a_warning(tmp_path: Path) -> None:
    """What is legal but odd is read, and said."""
    for path, words, *_ in odd(tmp_path):
        report = gate.inspect(path)
        assert not report.faults
        assert [words in warning.what for warning in report.warnings] == [True]
        assert gate.read(path).data.shape == report.shape


def test_all_faults_of_a_header_are_told_at_once(tmp_path: Path) -> None:
    """A header with four faults is not four rounds of fixing."""
    raw = nifti(dim=[3, 6, 7, -8], datatype=32, scl_slope=np.inf, pixdim=[1, 0])
    assert len(gate.inspect(write(tmp_path, zipped(raw))).faults) == 4
    assert refused(tmp_path / "scan.nii.gz").count("\n") == 3


@pytest.mark.row("I1")
def test_no_flipped_bit_loads_as_something_else(tmp_path: Path) -> None:
    """A .nii.gz with one bit flipped anywhere is refused, or (a flip in gzip's own header) holds what it held."""
    gz = zipped(nifti(HEAD))
    random = np.random.default_rng(2).integers(160, len(gz) * 8 - 64, 200)
    refusals = [0, 0]
    for where, bits in enumerate((random, itertools.chain(range(160), range(-64, 0)))):
        for bit in bits:
            path = write(tmp_path, flipped(gz, int(bit)))
            try:
                np.testing.assert_array_equal(gate.read(path).data, HEAD)
            except DataError:
                refusals[where] += 1
    assert refusals[0] == 200
    assert refusals[1] >= 64


@pytest.mark.filterwarnings("error")
@pytest.mark.row("I4")
@pytest.mark.parametrize("count", [80, pytest.param(400, marks=pytest.mark.slow)])
def test_no_header_escapes_as_something_else(tmp_path: Path, count: int) -> None:
    """A header with a bit flipped, or with any bytes in it, is read or refused: no other error, and no warning."""
    random = np.random.default_rng(4)
    for version, length in ((1, 348), (2, 540)):
        raw = nifti(version=version, qform=np.eye(4))
        bits = [flipped(raw, int(bit)) for bit in random.integers(0, length * 8, count)]
        refusals = [read_or_refused(tmp_path, each) for each in bits].count("refused")
        assert (
            0.025 < refusals / count < 0.975
        )  # of texts and times any bit may be set, of sizes and types none
        for changes in random.integers(1, 40, count):
            bad = bytearray(raw)
            for place in random.integers(12, length, changes):
                bad[place] = random.choice([0, 1, 64, 127, 128, 255])
            read_or_refused(tmp_path, bytes(bad))


def read_or_refused(tmp_path: Path, raw: bytes) -> str:
    """Which of both; what `inspect` says is what `read` does, and a fault says what to do."""
    path = write(tmp_path, raw, "scan.nii")
    report = gate.inspect(path)
    if not report.faults:
        volume = gate.read(path)
        assert volume.data.shape == report.shape
        assert np.isfinite(volume.data).all()
        return "read"
    assert all(fault.what and fault.fix for fault in report.faults)
    with pytest.raises(DataError) as raised:
        gate.read(path)
    assert all(line.startswith(f"{path}: ") and line.endswith(".") for line in raised.value.lines)
    return "refused"


@pytest.mark.row("I1")
def test_no_cut_file_loads(tmp_path: Path) -> None:
    """A .nii.gz and a .nii cut anywhere, by a byte or by most of it, are refused."""
    raw = nifti(HEAD)
    for name, whole in (("scan.nii.gz", zipped(raw)), ("scan.nii", raw)):
        cuts = [*range(1, 21), *np.random.default_rng(3).integers(21, len(whole) + 1, 80)]
        for cut in cuts:
            refused(write(tmp_path, whole[: len(whole) - int(cut)], name))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.row("I2")
def test_bombs_cost_nothing(corpus: list[Case]) -> None:
    """Refusing a header bomb takes less than 64 MB, and less time than to unpack as much on the same machine."""
    bombs = [str(case.path) for case in corpus if case.bomb]
    assert len(bombs) >= 10
    code = """
import json, resource, sys, time, zlib
from pathlib import Path
from medgen.data.scans.nifti import gate
from medgen.data.scans.nifti import stream
from medgen.data.scans.nifti import voxels

def peak():  # not ru_maxrss, which starts from the parent's
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
gate.inspect(Path(sys.argv[1]))
idle, times = peak(), {}
for name in sys.argv[1:]:
    taken = []
    for _ in range(3):
        start = time.process_time()
        assert gate.inspect(Path(name)).faults
        taken.append(time.process_time() - start)
    times[name] = min(taken)
used = peak() - idle
packed, taken = zlib.compress(bytes(64 << 20)), []
for _ in range(3):
    start = time.process_time()
    zlib.decompress(packed)
    taken.append(time.process_time() - start)
print(json.dumps([used, times, min(taken)]))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *bombs], env=environment, capture_output=True, check=True
    )
    megabytes, times, limit = json.loads(done.stdout)
    assert megabytes <= 64
    assert max(times.values()) <= limit, (times, limit)


@pytest.mark.row("I2")
def test_limit_is_the_callers(tmp_path: Path) -> None:
    """`max_voxels` is the number of voxels that still pass."""
    path = write(tmp_path, zipped(nifti()))
    assert gate.read(path, max_voxels=336).data.size == 336
    with pytest.raises(
        DataError, match=r"has 336 voxels \(6 x 7 x 8\), more than 335\. Crop it, or raise data"
    ):
        gate.read(path, max_voxels=335)


@pytest.mark.row("I3")
def test_policy_zero_sets_voxels_to_zero_and_says_so(tmp_path: Path) -> None:
    """With `nan = "zero"` voxels that are not finite become 0, the rest stays, and the report counts them."""
    data = changed((1, 2, 3), np.nan)
    data[2, 2, 2] = np.inf
    path = write(tmp_path, zipped(nifti(data)))
    np.testing.assert_array_equal(
        gate.read(path, nan="zero").data, np.nan_to_num(data, nan=0, posinf=0)
    )
    (warning,) = gate.inspect(path, nan="zero").warnings
    assert "has 2 voxels that are NaN or infinite, the first at [1, 2, 3]" in warning.what


@pytest.mark.row("I3")
def test_policy_zero_is_no_excuse_for_values_that_overflow(tmp_path: Path) -> None:
    """A finite value that float32 cannot hold is never turned into 0."""
    path = write(tmp_path, zipped(nifti(changed((0, 0, 0), 1e300, "f8"))))
    with pytest.raises(DataError, match=r"beyond 3\.4e\+38"):
        gate.read(path, nan="zero")


ORIENTATIONS = [
    np.array([*zip(axes, flips, strict=True)])
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def head_in(orientation: np.ndarray, form: str, bad: tuple[int, int, int] | None = None) -> bytes:
    """One head, stored in another orientation; `bad` is a voxel, as stored, that is NaN."""
    affine = np.diag([0.5, 2.0, 3.0, 1.0])
    affine[:3, 3] = -8, 4, 16
    image = nib.Nifti1Image(made_voxels(), affine).as_reoriented(orientation)
    data = np.array(image.dataobj)
    if bad:
        data[bad] = np.nan
    fields = {"sform_code": 0} if form == "qform" else {}
    return zipped(nifti(data, image.affine, qform=image.affine, **fields))


@pytest.mark.parametrize("form", ["sform", "qform"])
@pytest.mark.row("I5")
def test_all_48_orientations_are_one_head(tmp_path: Path, form: str) -> None:
    """Whatever way a head is stored, voxels, spacing, affine and content hash are the same."""
    hashes, names = set(), set()
    for orientation in ORIENTATIONS:
        path = write(tmp_path, head_in(orientation, form))
        volume, report = gate.read(path), gate.inspect(path)
        np.testing.assert_array_equal(volume.data, made_voxels())
        np.testing.assert_allclose(volume.spacing, (0.5, 2, 3), rtol=1e-6)
        np.testing.assert_allclose(volume.affine[:3, 3], (-8, 4, 16), atol=1e-5)
        assert volume.data.flags.f_contiguous
        assert not report.warnings
        hashes.add(report.content)
        names.add(report.orientation)
    assert (len(hashes), len(names)) == (1, 48)


@pytest.mark.row("I5")
def test_bad_voxels_are_counted_as_the_file_counts(tmp_path: Path) -> None:
    """The index in a message is the one that a viewer shows, whatever the orientation."""
    for orientation in ORIENTATIONS:
        message = refused(write(tmp_path, head_in(orientation, "sform", bad=(1, 2, 4))))
        assert "the first at [1, 2, 4]" in message


@pytest.mark.row("I5")
def test_slightly_oblique_is_not_worth_a_word(tmp_path: Path) -> None:
    """4 degrees pass in silence, 6 are warned of."""
    assert not gate.inspect(write(tmp_path, zipped(nifti(affine=turned(4))))).warnings
    assert gate.inspect(write(tmp_path, zipped(nifti(affine=turned(6))))).warnings


@pytest.mark.parametrize("shape", [(6, 7, 8, 1), (6, 7, 8, 1, 1), (6, 7, 1)])
@pytest.mark.row("I6")
def test_axes_of_length_one_do_no_harm(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Trailing axes of length 1 are dropped; a single slice is a volume."""
    data = made_voxels(shape=shape)
    np.testing.assert_array_equal(
        gate.read(write(tmp_path, zipped(nifti(data)))).data, data.reshape(shape[:3])
    )


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize(("version", "order"), [(1, "<"), (1, ">"), (2, "<"), (2, ">")])
@pytest.mark.row("I8")
def test_every_real_type_reads_as_nibabel_reads_it(
    tmp_path: Path, dtype: str, version: int, order: str
) -> None:
    """All types, both byte orders and both versions, scaled and not, .nii and .nii.gz: the values are nibabel's."""
    for fields in ({}, {"scl_slope": 0.25, "scl_inter": -3.5}, {"scl_slope": 0, "scl_inter": 7}):
        raw = nifti(made_voxels(dtype), version=version, order=order, **fields)
        for path in (write(tmp_path, raw, "scan.nii"), write(tmp_path, zipped(raw))):
            volume = gate.read(path)
            assert volume.data.dtype == np.float32
            np.testing.assert_array_equal(volume.data, nib.load(path).get_fdata(dtype=np.float32))


@pytest.mark.row("I8")
def test_scaling_is_exact_where_float32_would_round(tmp_path: Path) -> None:
    """Large integers are scaled in float64: what is left of them is right to the last bit of float32."""
    data = 2**30 + made_voxels("i4")
    path = write(tmp_path, zipped(nifti(data, scl_slope=0.5, scl_inter=-(2.0**29))))
    np.testing.assert_array_equal(gate.read(path).data, made_voxels() * 0.5)


@pytest.mark.row("I4")
def test_qfac_zero_is_one(tmp_path: Path) -> None:
    """The standard reads a handedness of 0, which old tools write, as 1."""
    path = write(tmp_path, zipped(nifti(qform=np.eye(4), sform_code=0, pixdim=[0])))
    np.testing.assert_array_equal(gate.read(path).affine, np.eye(4))


def test_extensions_members_and_names_are_read(tmp_path: Path) -> None:
    """Header extensions, several gzip members, an unset offset and capitals in the name are legal."""
    image = nib.Nifti1Image(made_voxels(), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 5000))
    raw = nifti()
    members = zipped(raw[:100]) + zipped(raw[100:]) + zipped(b"")
    for path in (
        write(tmp_path, zipped(image.to_bytes()), "extended.nii.gz"),
        write(tmp_path, members, "members.nii.gz"),
        write(tmp_path, nifti(vox_offset=0), "offset.nii"),
        write(tmp_path, zipped(raw), "SCAN.NII.GZ"),
    ):
        np.testing.assert_array_equal(gate.read(path).data, made_voxels())


@pytest.mark.row("I8")
def test_masks_with_a_scale_factor_or_rounding_are_labels(tmp_path: Path) -> None:
    """A "one" of 0.99999997 and a 0.9999 are 1; the report counts voxels per label."""
    mask = (made_voxels("i4") > 50).astype("i4")
    scaled = nifti(mask * (2**31 - 1), scl_slope=1 / 2**31)
    for raw in (nifti(mask), scaled, nifti(mask.astype("f4") * np.float32(0.9999))):
        path = write(tmp_path, zipped(raw))
        whole = voxels.labels(gate.read(path, mask=True).data)
        np.testing.assert_array_equal(whole, mask)
        assert whole.dtype == np.int32
        assert gate.inspect(path, mask=True).labels == {
            0: int((mask == 0).sum()),
            1: int(mask.sum()),
        }


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.row("I8")
def test_empty_and_full_masks_are_masks(tmp_path: Path, value: int) -> None:
    """What is a fault in an image is not one in a mask."""
    path = write(tmp_path, zipped(nifti(np.full((6, 7, 8), value, "u1"))))
    assert gate.inspect(path, mask=True).labels == {value: 336}
    assert "is constant" in refused(path)


@pytest.mark.parametrize("value", [0.5, 1.002, -1.0, np.nan, np.inf])
@pytest.mark.row("I8")
def test_voxels_that_are_no_labels_are_refused(value: float) -> None:
    """`labels` names the file and a value that is no label."""
    with pytest.raises(DataError, match=r"^seg\.nii\.gz: is not a label image, it holds"):
        voxels.labels(np.array([[[0, 1, value]]], np.float32), "seg.nii.gz")


def test_images_have_no_labels(tmp_path: Path) -> None:
    """Labels are reported of whole numbers only."""
    assert gate.inspect(write(tmp_path, zipped(nifti(HEAD)))).labels == {}
    assert (
        sum(gate.inspect(write(tmp_path, zipped(nifti(made_voxels("i2"))))).labels.values()) == 336
    )


@pytest.mark.row("I9")
def test_content_knows_the_image_however_it_was_saved(tmp_path: Path) -> None:
    """Other type, compression, place and spacing: the same content. One other voxel: another one."""
    first = gate.inspect(write(tmp_path, zipped(nifti(made_voxels("f4"))))).content
    again = write(tmp_path, nifti(made_voxels("u1"), affine=np.diag([2, 2, 2, 1])), "again.nii")
    other = write(tmp_path, nifti(changed((0, 0, 0), 55.5)), "other.nii")
    reshaped = write(tmp_path, nifti(made_voxels().reshape((7, 6, 8), order="F")), "reshaped.nii")
    assert gate.inspect(again).content == first
    assert len({first, gate.inspect(other).content, gate.inspect(reshaped).content}) == 3


def test_digest_is_the_files_sha256(tmp_path: Path) -> None:
    """`digest` is what sha256sum prints, and a missing file is a line, not a traceback."""
    assert stream.digest(write(tmp_path, b"abc")).startswith("ba7816bf8f01cfea414140de5dae2223")
    with pytest.raises(
        DataError, match=r"gone\.nii: cannot be read \(No such file or directory\)\. Check"
    ):
        stream.digest(tmp_path / "gone.nii")


@pytest.mark.row("I7")
def test_a_file_without_permission_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permission denied is told, not raised; root, who may read anything, is told what others are."""
    path = write(tmp_path, zipped(nifti()))

    def denied(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)
    assert "cannot be read (Permission denied)" in refused(path)


@pytest.mark.row("I7")
def test_a_disk_that_fails_while_reading_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input/output error in the middle of a file is a line with the file's name."""

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    path = write(tmp_path, zipped(nifti()))
    monkeypatch.setattr(stream, "_inflate", fail)
    assert "scan.nii.gz: cannot be read (Input/output error). Check" in refused(path)


@pytest.mark.row("X3")
def test_names_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    """Line breaks, escape codes and bytes that are no text are spelt out; umlauts and spaces stay."""
    for name in ("a\nb.nii", "a\x1b[31mb.nii", os.fsdecode(b"a\xffb.nii")):
        message = refused(write(tmp_path, b"", name))
        assert message.isprintable()
        assert "b.nii: is empty. Copy it again." in message
    assert "/Müller 1.nii: " in refused(write(tmp_path, b"", "Müller 1.nii"))


def test_gzip_of_python_is_read_to_its_end(tmp_path: Path) -> None:
    """Every level of compression inflates to the same voxels, however often the chunks wrap."""
    data = np.zeros((128, 128, 130), "f4")
    data[64:, :, 3:90] = 1
    data[:9, :9, :9] = np.random.default_rng(5).normal(size=(9, 9, 9))
    for level in (0, 1, 9):
        path = write(tmp_path, gzip.compress(nifti(data), level))
        np.testing.assert_array_equal(gate.read(path).data, data)
