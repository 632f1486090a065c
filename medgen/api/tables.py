"""The tables of a recipe that belong to the core."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Literal

from medgen.api.augment import AugmentSettings
from medgen.api.settings import field, settings
from medgen.api.value_checks import Check, between, ge, gt, one_of

LARGEST_SIZE = 4096
"""Maximum side of a training image, px."""
FOLDER_FIELDS = ("mode", "name", "strategy", "size", "timestamp", "dimensions")


_FIELDS = "made of {" + "}, {".join(FOLDER_FIELDS) + "} and text"
_FOLDER = Check(lambda pattern: _is_folder_pattern(pattern), _FIELDS)
_NAME = Check(
    lambda name: "/" not in name and name.isprintable() and name != "..", "without a slash"
)


@settings
class TrainingSettings:
    """Length and method of training. Either `steps` or `epochs` is given."""

    steps: int = field(0, help="optimizer steps of the whole run", check=ge(0))
    epochs: int = field(0, help="passes over the data, instead of steps", check=ge(0))
    epoch_steps: int = field(
        0, help="optimizer steps after which an epoch ends early; 0: never", check=ge(0)
    )
    batch_size: int = field(
        16, help="samples per optimizer step, over all ranks", check=between(1, 10**6)
    )
    accumulate: int = field(
        1, help="micro-batches per batch, to save memory; divides batch_size", check=gt(0)
    )
    optimizer: Literal["adamw", "muon"] = field(
        "adamw",
        help="method of the steps; muon (Jordan et al. 2024) for the weights between features, adamw for all others:"
        " learns more in each step, most of all in the first thousand",
    )
    learning_rate: float = field(1e-4, help="peak learning rate, after warm-up", check=gt(0))
    warmup_steps: int = field(
        0, help="optimizer steps over which the learning rate rises", check=ge(0)
    )
    schedule: Literal["cosine", "linear", "constant"] = field(
        "cosine", help="decay of the learning rate after warm-up"
    )
    min_lr: float = field(
        0.0, help="final learning rate, as a share of learning_rate", check=between(0, 1)
    )
    weight_decay: float = field(0.01, help="decoupled weight decay", check=ge(0))
    clip: float = field(1.0, help="maximum norm of the gradient; 0: no clipping", check=ge(0))
    precision: Literal["auto", "bf16", "fp32"] = field(
        "auto",
        help="number format of the network; losses and weights are always fp32. auto: bf16 if the device that a run "
        "begins on is faster in it",
    )
    compile: Literal["auto", True, False] = field(
        "auto",
        help="use torch.compile: faster after a minute of compiling. auto: if it works where a run begins",
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = field(
        "auto",
        help="order of a tensor's axes in memory. auto: channels_last for bf16 and widths of 128 and more",
    )
    validate_every: int = field(1, help="epochs between validations; 0: never", check=ge(0))
    val_batches: int = field(
        0, help="batches per validation; 0: the whole validation set", check=ge(0)
    )
    deterministic: bool = field(False, help="use only deterministic GPU kernels; slower")
    max_skipped: int = field(
        10, help="consecutive non-finite steps to skip before failing", check=ge(0)
    )
    init_from: Path | None = field(
        None,
        help="checkpoint with the initial weights of a new run, or the name of weights that come along; "
        '"": none, whatever the recipe extends',
    )
    time_limit: float = field(
        0.0, help="minutes after which to save and stop; 0: SLURM's limit, if any", check=ge(0)
    )
    devices: int = field(1, help="devices per node, one process on each", check=between(1, 1024))
    may_change = (
        "steps",
        "epochs",
        "accumulate",
        "max_skipped",
        "init_from",
        "time_limit",
        "devices",
        "compile",
    )


@settings
class RunSettings:
    """Folder and seed of a run."""

    name: str = field("", help="prefix of the run folder's name", check=_NAME)
    seed: int = field(0, help="seed of all random numbers", check=ge(0))
    root: Path = field(Path("runs"), help="folder of all runs")
    dir: Path | None = field(None, help="folder of the run, instead of one below root")
    folder: str = field(
        "diffusion_{dimensions}d/{mode}/{name}{strategy}_{size}_{timestamp}",
        help="pattern of the run's folder below root",
        check=_FOLDER,
    )
    may_change = ("name", "root", "dir", "folder")


@settings
class DistributedSettings:
    """Processes that train together."""

    timeout: float = field(
        600.0,
        help="seconds of silence of a process after which all are ended",
        check=between(0.1, 10**7),
    )
    may_change = ("timeout",)


def _is_folder_pattern(pattern: str) -> bool:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
    except ValueError:
        return False
    path = Path(pattern)
    return (
        fields <= set(FOLDER_FIELDS)
        and not path.is_absolute()
        and ".." not in path.parts
        and pattern.isprintable()
    )


LAYOUTS = ("auto", "folders", "brats", "modalities", "nnunet", "bids", "files")
AXES = ("sagittal", "coronal", "axial")
"""The axes of a canonical (RAS) volume, in order."""
DEFAULT_MASK = "seg"
"""The default mask: every label but 0 of the file of this name."""


def _compiles(regex: str) -> bool:
    try:
        re.compile(regex)
    except re.error:
        return False
    return True


REGEX = Check(_compiles, "a regular expression of Python")


@settings
class MaskSettings:
    """A mask: the voxels of a segmentation that have certain labels."""

    file: str = field("seg", help="segmentation: a name in [data.files], or a file pattern")
    labels: list[int] = field([], help="labels of the mask; empty: every label but 0")


@settings
class DataSettings:
    """Location of the scans, and selection and preparation of slices."""

    root: Path = field(
        Path("data"), help="folder with a folder per patient, or with train/ and val/ above them"
    )
    layout: str = field(
        "auto",
        help="arrangement of the files. auto: detected; files: each file is a patient",
        check=one_of(*LAYOUTS),
    )
    files: dict[str, str] = field(
        {}, help='pattern of a file in the patient\'s folder, by modality: flair = "FLAIR_*"'
    )
    masks: dict[str, MaskSettings] = field(
        {}, help="masks by name; empty: seg, every label but 0 of the file seg"
    )
    person: str = field(
        "",
        help="regular expression of the person in a patient's id; empty: usual names of visits",
        check=REGEX,
    )
    dimensions: Literal[2, 3] = field(2, help="axes of a sample. 2: slices; 3: volumes")
    image_size: int | tuple[int, int, int] = field(
        128,
        help="px, width and height of a slice, or every side of a volume; of a volume also [x, y, z]",
        check=between(8, LARGEST_SIZE),
    )
    patch_size: int | tuple[int, int, int] | None = field(
        None,
        help="px, sides of the crops that are trained on; default: none, but whole slices or volumes",
        check=between(4, LARGEST_SIZE),
    )
    lesion_patches: float = field(
        0.0, help="share of the crops of patch_size that are around a lesion", check=between(0, 1)
    )
    spacing: float = field(
        0.0,
        help="mm per pixel, along every axis; 0: the least at which every patient's head fits",
        check=between(0, 50),
    )
    crop: Literal["none", "lesions"] = field(
        "none",
        help="lesions: not whole slices or volumes, but image_size px around each lesion of them; spacing 0 is then "
        "the median of the scans' own",
    )
    axis: str = field("axial", help="axis perpendicular to the slices", check=one_of(*AXES))
    min_foreground: float = field(
        0.05, help="share of a slice or volume, 0 to 1, that must be head", check=between(0, 1)
    )
    lesion_only: bool = field(
        False, help="use only slices or volumes that show a lesion in any mask"
    )
    min_lesion: int = field(
        1, help="px of the stored slice or volume that a lesion needs, for lesion_only", check=ge(1)
    )
    val_fraction: float = field(
        0.1,
        help="share of the patients to validate on; 0: none, and no best.pt",
        check=between(0, 0.9),
    )
    lower: float = field(
        0.5, help="percentile of the head's intensities that becomes -1", check=between(0, 49)
    )
    upper: float = field(
        99.5, help="percentile of the head's intensities that becomes 1", check=between(51, 100)
    )
    headroom: float = field(
        0.0,
        help="range above upper that is kept too, in times that from lower to upper, so that no lesion is cut off",
        check=between(0, 10),
    )
    workers: int = field(
        0,
        help="processes that fill the slice store; 0: as many as help, up to all cores",
        check=between(0, 1024),
    )
    augment: AugmentSettings = field(
        AugmentSettings(), help="changes of the slices or volumes that are trained on"
    )
    nan: Literal["error", "zero"] = field(
        "error", help="treatment of NaN and infinite voxels: refuse the file, or set them to 0"
    )
    max_voxels: int = field(512**3, help="voxels beyond which a file is refused", check=gt(0))
    # paths, so that checkpoints name no patient
    exclude: list[Path] = field(
        [], help="patients to leave out: ids, or paths below root of a folder or a file"
    )
    allow_patient_overlap: bool = field(
        False, help="allow a patient in training and in validation or test at once"
    )
    accept_changes: bool = field(False, help="continue a run although its data have changed")
    may_change = ("workers", "max_voxels", "exclude", "allow_patient_overlap", "accept_changes")

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the points of a whole sample along each axis."""
        return self._along_axes(self.image_size)

    @property
    def trained_shape(self) -> tuple[int, ...]:
        """Return the points along each axis of what is trained on: of a crop, or of the whole."""
        return self._along_axes(self.trained_size)

    @property
    def trained_size(self) -> int | tuple[int, int, int]:
        """Return `patch_size`, or `image_size` where samples are trained on as a whole."""
        return self.patch_size or self.image_size

    @property
    def trained_key(self) -> str:
        """Return the key that `trained_size` comes from."""
        return "data.patch_size" if self.patch_size else "data.image_size"

    @property
    def sizes(self) -> dict[str, int | tuple[int, int, int]]:
        """Return the sizes of what a model sees, by key: of whole samples, and of crops if any."""
        return {"data.image_size": self.image_size, self.trained_key: self.trained_size}

    def _along_axes(self, size: int | tuple[int, int, int]) -> tuple[int, ...]:
        given = sides(size)
        return given * self.dimensions if len(given) == 1 else given

    @property
    def axes(self) -> int:
        """Return the number of spatial axes of a sample: 2 for slices, 3 for volumes."""
        return self.dimensions

    @property
    def within(self) -> tuple[int, ...]:
        """Return the axes of a canonical (RAS) volume that a sample has, ascending."""
        across = () if self.dimensions == 3 else (AXES.index(self.axis),)
        return tuple(axis for axis in range(len(AXES)) if axis not in across)

    @property
    def noun(self) -> str:
        """Return what messages call samples."""
        return "slices" if self.dimensions == 2 else "volumes"


def sides(image_size: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return the numbers that `data.image_size` gives: one, or one per axis."""
    return (image_size,) if isinstance(image_size, int) else tuple(image_size)


def image_size(sides: tuple[int, ...]) -> int | tuple[int, int, int]:
    """Return what `data.image_size` is for these numbers: one, or three."""
    one, *others = sides
    if not others:
        return one
    two, three = others
    return one, two, three


def size_text(image_size: int | tuple[int, ...]) -> str:
    """Return `data.image_size` in one word, for messages and the names of folders."""
    return "x".join(map(str, sides(image_size)))
