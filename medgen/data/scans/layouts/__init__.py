"""Which file holds which modality of which patient, and which patients are for training and which
for validation.
"""

from medgen.data.scans.layouts.insertions import NEW_LESIONS, shown_persons
from medgen.data.scans.layouts.people import person
from medgen.data.scans.layouts.sources import mask, mask_names, source
from medgen.data.scans.layouts.survey import find, survey
from medgen.data.scans.layouts.types import SHOWN, SPLITS, Patient, Split, Survey, expand
from medgen.data.scans.layouts.words import SPELLINGS

__all__ = [
    "NEW_LESIONS",
    "SHOWN",
    "SPELLINGS",
    "SPLITS",
    "Patient",
    "Split",
    "Survey",
    "expand",
    "find",
    "mask",
    "mask_names",
    "person",
    "shown_persons",
    "source",
    "survey",
]
