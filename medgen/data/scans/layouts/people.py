"""Which person a patient's id names: all visits of one are on one side of the split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from medgen.data.scans.layouts.types import Scans
from medgen.system.names import native

_YEAR, _MONTH, _DAY = r"(19|20)\d\d", "(0[1-9]|1[0-2])", r"(0[1-9]|[12]\d|3[01])"
_DATE = rf"({_YEAR}[-_.]?{_MONTH}[-_.]?{_DAY}|\d?\d[-.]\d?\d[-.]{_YEAR})([T_-]?\d{{4,6}})?"
_NAME = "(jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)"
_NAME += "((?<=jan|feb)uary|(?<=mar)ch|(?<=apr)il|(?<=aug)ust|(?<=sept)ember|(?<=oct)ober|(?<=nov|dec)ember)?"
_NAMED = (
    rf"(\d?\d[-_. ]?)?{_NAME}[-_. ]?((\d?\d)[-_. ])?{_YEAR}|{_YEAR}[-_. ]?{_NAME}([-_. ]?\d?\d)?"
)
"""A date with the month's name."""
_WORD = (
    "ses|sess|session|visits?|vis|weeks?|wk|months?|mon|mo|days?|years?|yr|tp|time|times|time[-_ ]?points?|"
    "fu|follow[-_ ]?ups?|scan|exam|examination|study|date|run|acq|mr|mri|baseline|pre|post|"
    "re[-_ ]?scan|re[-_ ]?test|repeat|cycle|cyc"
)
"""What a visit is called before its number."""
_LETTER = "t|v|m|w|d|y"
"""The same in one letter, which only a number may follow."""
_ALONE = (
    "baseline|base[-_ ]?line|bl|base|initial|screening|scr|follow[-_ ]?up|fu|"
    "(pre|post)[-_ ]?(op|operative|surgery|surgical|treatment|tx|rt|chemo|therapy)?|"
    "before|after|first|second|third|last|early|late|final|relapse|recurrence|progression|"
    "(scan[-_ ]?)?re[-_ ]?scan|(test[-_ ]?)?re[-_ ]?test|repeat"
)
"""What a visit is called without a number."""
_NUMBER = rf"[-_ ]?[a-z]{{0,2}}\d+([-_.](\d{{1,2}}|{_YEAR}))?"
_COUNTED = (
    r"(visit|session|scan|exam|time[-_ ]?point|tp|cycle)[-_ ]?([ivx]{1,4}|[a-h]|one|two|three|four|five)|"
    r"\d(st|nd|rd|th)|(\d(st|nd|rd|th)|first|second|third|fourth|last)[-_ ]?"
    r"(visit|session|scan|exam|time[-_ ]?point|follow[-_ ]?up)"
)
"""What is counted by other than a number: `visitII`, `scan_B`, `2nd-scan`."""
_AFTER_FU = "([-_ ]?(fu|follow[-_ ]?up|post|post[-_ ]?op))?"
_SPAN = rf"\d{{1,4}}([.]\d)?[-_ ]?(wks?|weeks?|mos?|mths?|mons?|months?){_AFTER_FU}"
_VISIT = rf"({_WORD}){_NUMBER}|({_LETTER})\d{{1,4}}|ses-[^/]*|({_ALONE})|{_DATE}|{_NAMED}|{_COUNTED}|(fu)?{_SPAN}"
_SHORT = (
    rf"(fu|post)?\d{{1,4}}([.]\d)?([hdwmy]|[-_ ]?(hrs?|hours?|days?|yrs?|years?)){_AFTER_FU}|scan|test|"
    rf"c\d{{1,2}}[-_ ]?[dw]\d{{1,3}}|"
    rf"({_DAY}{_MONTH}|{_MONTH}{_DAY}|{_DAY}_{_MONTH}_|{_MONTH}_{_DAY}_){_YEAR}|{_YEAR}-{_MONTH}"
)
"""What is a visit only beside a number that is a person's: `P01_3M`, not `HC_45M`; `P01_C1D1`,
`P01_04032019`.
"""
_WORKED_ON = (
    "([-_ ](reg|registered|coreg|coregistered|brain|bet|skullstripped|stripped|preproc|preprocessed|proc|processed|n4|"
    "mni|norm|normali[sz]ed|resampled))*"
)
"""What may follow a visit: what was done to its scans."""
_TAIL = re.compile(rf"(?P<rest>.*?[^-_/. ])[-_/. ]+({_VISIT}){_WORKED_ON}", re.IGNORECASE)
_TAIL_SHORT = re.compile(
    rf"(?P<rest>.*?\d(.*?[^-_/. ])?)[-_/. ]+({_SHORT}){_WORKED_ON}", re.IGNORECASE
)
_JOINED = re.compile(
    r"(?P<rest>.*\d)((visit|ses|session|time[-_ ]?point|tp|month|week|wk|fu|follow[-_ ]?up|scan)\d+|"
    r"baseline|bl|fu|follow[-_ ]?up|(pre|post)[-_ ]?(op)?|re[-_ ]?scan|re[-_ ]?test)",
    re.IGNORECASE,
)
"""A visit that follows the person's number at once: `P01visit2`, `P01pre`."""
_STUDY = re.compile(rf"(?P<rest>.+)/({_VISIT})([-_ ].*)?", re.IGNORECASE)
"""A folder below the person's that begins with a visit: `TCGA-02-0003/06-08-1997-NA-MRI BRAIN`."""
_ABOVE = re.compile(rf"({_VISIT})/(?P<rest>.+)", re.IGNORECASE)
"""A folder per visit with the patients in it: `baseline/P01`."""
_ABOVE_SHORT = re.compile(rf"({_SHORT})/(?P<rest>.*\d.*)", re.IGNORECASE)
_PLACE = re.compile(
    r"(.*[-_/. ])?(sites?|cent(er|re)|cohort|group|grp|hospital|hosp|scanner|batch|fold|arm|study|series)[-_ ]?\w{0,3}",
    re.IGNORECASE,
)
"""What ends in the number of a place or group rather than of a person."""
_COHORTS = (
    r"(?P<rest>.*-\d{5})-\d{3}",  # BraTS 2021 and later: BraTS-MET-00001-002
    r"(?P<rest>brats_\w*?pat_?\d+)_\d+",  # BraTS 2012 to 2015
    r"(?P<rest>UPENN-GBM-\d{5})_\d+",
    r"(?P<rest>UCSF-PDGM-\d+)_(FU\w+_)?nifti",
    r"(?P<rest>(.*\D)?\d{6})[A-Z]",  # UCSF-ALPTDG: 100101A, 100101B
    r"(?P<rest>training\d\d|test\d\d)_\d\d",  # ISBI 2015
)
_KNOWN = [re.compile(each, re.IGNORECASE) for each in _COHORTS]
_GENERIC = re.compile(
    "(sub|subj|subject|subjects|patient|patients|patientid|pat|pt|p|s|case|cases|id|mri|mr|brain|scan|scans|head|image|"
    r"volume|vol|syn|study|mets?|train|val|test|\W)*",
    re.IGNORECASE,
)
"""What is left of an id when its number is taken away, and names nobody."""


MOST_VISITS = 10
"""Visits per person, on average over a cohort, beyond which what looks like visits are persons."""


def person(id: str) -> str:
    """The same for all sessions and time points of a patient: `sub-01/ses-02`,
    `BraTS-MET-00001-002`, `P1_week-10`.
    """
    while (rest := _without_visit(id)) is not None:
        id = rest
    return id


def by_regex(regex: str, id: str) -> str | None:
    """What the expression finds in an id: its first group that took part, or the whole match; None
    if nothing.
    """
    found = re.search(native(regex), id)
    if not found:
        return None
    return next((group for group in found.groups() if group), found[0]) or None


def with_persons(everyone: Sequence[Scans], regex: str) -> list[Scans]:
    """Everyone, with the person each is."""
    if regex:
        return [each._replace(person=by_regex(regex, each.id) or each.id) for each in everyone]
    persons = {each.id: person(each.id) for each in everyone}
    nobody = _nobody(persons)
    visits = _visit_folders([each.id for each in everyone])
    return [
        each._replace(
            person=person(each.id.rpartition("/")[0])
            if each.id in visits
            else each.id
            if persons[each.id] in nobody
            else persons[each.id]
        )
        for each in everyone
    ]


def unmatched(everyone: Iterable[Scans], regex: str) -> list[Scans]:
    """Those in whose ids the expression finds nothing."""
    return [each for each in everyone if regex and by_regex(regex, each.id) is None]


def _without_visit(id: str) -> str | None:
    for known in (*_KNOWN, _ABOVE_SHORT, _TAIL_SHORT, _ABOVE, _TAIL, _STUDY, _JOINED):
        found = known.fullmatch(id)
        if not found or _GENERIC.fullmatch(found["rest"]):
            continue
        if known not in (_ABOVE_SHORT, _TAIL_SHORT) or not _PLACE.fullmatch(found["rest"]):
            return found["rest"]
    return None


def _nobody(persons: dict[str, str]) -> set[str]:
    """Names that are no person's, as too many would be one: `Mets` of `Mets_20200101`, `site1` of
    `site1_scan7`.
    """
    found = set(persons.values())
    alone = len(found) == 1 and len(persons) > 2 and not re.search(r"\d", next(iter(found)))
    return found if alone or len(found) * MOST_VISITS < len(persons) else set()


def _visit_folders(ids: Sequence[str]) -> set[str]:
    """Ids below folders that share the names in them, `P1/a`, `P1/b`, where there are more folders
    than names.
    """
    inner: dict[str, set[str]] = {}
    for id in ids:
        above, _, name = id.rpartition("/")
        if above:
            inner.setdefault(above, set()).add(name)
    names = [name for each in inner.values() for name in each]
    distinct = set(names)
    if len(inner) <= len(distinct) or any(names.count(name) < 2 for name in distinct):
        return set()
    return {f"{above}/{name}" for above, each in inner.items() for name in each}
