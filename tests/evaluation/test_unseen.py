"""Persons to test on who are hosts or donors of the pairs are refused, by prove and by export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from insertion.made_up import write_heads

from medgen.api.tables import DataSettings
from medgen.errors import DataError
from medgen.evaluation.sources import Source
from medgen.evaluation.unseen import require_unseen

TESTED = ("P000", "P001")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    root = tmp_path / "real"
    write_heads(root / "train", range(2, 5))
    write_heads(root / "val", range(2))
    return Source(DataSettings(root=root), ("flair",), ("seg",), "real")


def inserted(root: Path, host: str, donor: str) -> Path:
    """Write the manifest of one output."""
    root.mkdir()
    row = {"index": 0, "id": "syn_00000", "host": {"id": host, "person": host}}
    row |= {"inserted": [{"donor": donor, "person": donor}], "files": {"flair": "0"}}  # type: ignore[dict-item]
    lines = [{"insert": True, "images": ["flair"]}, row]
    (root / "manifest.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return root


@pytest.mark.parametrize(("host", "donor"), [("P000", "P002"), ("P002", "P001")])
def test_a_person_to_test_on_is_no_host_and_no_donor(
    source: Source, tmp_path: Path, host: str, donor: str
) -> None:
    (shown,) = {host, donor} & {*TESTED}
    with pytest.raises(DataError) as error:
        require_unseen(source, inserted(tmp_path / "out", host, donor), ("val",))
    assert error.value.lines == [
        f"{tmp_path}/out: 1 persons to test on are hosts or donors of its scans: {shown}. "
        "Insert without them, or set data.allow_patient_overlap=true if these are others."
    ]


def test_persons_to_train_on_may_be_hosts_and_donors(source: Source, tmp_path: Path) -> None:
    out = inserted(tmp_path / "out", "P002", "P003")
    require_unseen(source, out, ("val",))
    with pytest.raises(DataError, match="2 persons to test on"):
        require_unseen(source, out, ("train", "val"))


def test_namesakes_pass_where_the_user_says_so(source: Source, tmp_path: Path) -> None:
    data = DataSettings(root=source.data.root, allow_patient_overlap=True)
    given = Source(data, source.images, source.masks, source.name)
    require_unseen(given, inserted(tmp_path / "out", "P000", "P001"), ("val",))


@pytest.mark.parametrize(
    "command",
    [("prove", "{real}", "{out}"), ("export", "{out}", "--nnunet", "{to}", "--real", "{real}")],
)
def test_prove_and_export_refuse_such_pairs(
    medgen: Callable[..., Any], source: Source, tmp_path: Path, command: tuple[str, ...]
) -> None:
    out = inserted(tmp_path / "out", "P000", "P002")
    given = {"real": source.data.root, "out": out, "to": tmp_path / "to"}
    result = medgen(*(each.format(**given) for each in command))
    assert result.code == 3, result.err
    assert "hosts or donors of its scans: P000" in result.err
