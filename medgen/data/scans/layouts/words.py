"""The words that people name files and folders by."""

from __future__ import annotations

import re

from medgen.data.scans.layouts.types import Split

T1_GD = "t1c|t1ce|t1gd|t1post|t1-?contrast"
SPELLINGS = {
    "bravo": T1_GD,
    "t1_gd": T1_GD,
    "t1_pre": "t1n|t1|t1pre|t1w",
    "flair": "t2f|flair|t2[-_]?flair",
    "t2": "t2w|t2",
}
"""What others call our modalities, in lower case."""
MASK_WORDS = (
    "mask|masks|seg|segs|segm|segmentation|segmentations|label|labels|lesion|lesions|annotation|annotations|gt|"
    "ground[-_]?truths?|roi|rois|target|targets|tumou?r|labelstr|labelsts|labelsva|labelsval"
)
"""What folders of masks, and ends of their files' names, are called."""
IMAGE_WORDS = (
    "images?|imgs?|scans?|volumes?|vols?|raw|inputs?|mri|mris|nifti|niftis|image[-_]?data|imagestr|imagests|imagesva|"
    "imagesval"
)
"""What folders of scans are called."""
JUNK = (
    "__macosx",
    "@eadir",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "lost+found",
    "system volume information",
)
"""Folders that operating systems and storage make."""

_SETS = r"[-_ .]?(data|dataset|datas|set|sets|split|cases|scans|images|patients|subjects|cohort)?$"
_ENDS: dict[Split, str] = {
    "train": r"(train|training|trn|imagestr)",
    "val": r"(val|valid|validation|validate|validating|eval|images(va|val))",
    "test": r"(test|testing|tst|test[-_ ]new|hold[-_ ]?out|held[-_ ]?out|imagests)",
}


def split_of(name: str) -> Split | None:
    """Return the split that a folder is named after: `Train`, `test_new`, `BraTS2020_TrainingData`."""
    for split, words in _ENDS.items():
        if re.search(rf"(^|[-_ .\d]){words}{_SETS}", name, re.IGNORECASE):
            return split
    return None


def is_junk(name: str) -> bool:
    """Return True for hidden files, macOS's halves of files, and what servers and systems keep."""
    return name.startswith(".") or name.lower() in JUNK


def spellings(source: str) -> str:
    """Return a regular expression of what a modality may be called, its own name first."""
    return "|".join(dict.fromkeys([re.escape(source), SPELLINGS.get(source, re.escape(source))]))


def every_spelling() -> str:
    """Return a regular expression of the names of all modalities."""
    return "|".join(
        dict.fromkeys([*SPELLINGS, *"|".join(SPELLINGS.values()).split("|"), "dwi", "adc", "swi"])
    )


def stem(name: str) -> str:
    """Return a file's name without folders and `.nii.gz`."""
    return re.sub(r"\.nii(\.gz)?$", "", name.rsplit("/", 1)[-1], flags=re.IGNORECASE)
