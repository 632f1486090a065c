"""Names of files and folders in any encoding end no command (point 16)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medgen.api.settings import unstructure
from medgen.api.structure import structure
from medgen.api.tables import DataSettings
from medgen.config.overlay import Layers

SMALL = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale whose encoding is ASCII."""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in an environment of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="replace",
    )


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, SMALL, {"PYTHONIOENCODING": "latin-1"}]
)
def test_what_a_log_cannot_write_is_shown_escaped(environment):
    """Point 16."""
    done = run(
        r"from medgen.system.console import say, warn; say('M\xfcller \u60a3 \udcfc'); warn('\u60a3')",
        **environment,
    )
    assert (done.returncode, done.stderr.splitlines()) == (0, [r"medgen: warning: \u60a3"])
    assert r"\u60a3 \udcfc" in done.stdout


def test_a_folder_in_a_recipe_is_found_in_a_locale_that_cannot_read_its_name(tmp_path):
    """Point 16."""
    (tmp_path / "Müller").mkdir()
    code = (
        "from medgen.api.settings import unstructure; from medgen.api.structure import structure\n"
        "from medgen.api.tables import DataSettings\n"
        f"settings, _ = structure({{'root': {str(tmp_path / 'Müller')!a}}}, DataSettings)\n"
        "print(settings.root.is_dir(), ascii(unstructure(settings)['root']))"
    )
    for environment in (SMALL, {}):
        done = run(code, **environment)
        assert done.stdout.split() == ["True", ascii(str(tmp_path / "Müller"))], done.stderr


def test_a_path_by_a_variable_may_have_any_bytes_and_is_written_down_with_them(
    tmp_path, monkeypatch
):
    """Point 16."""
    monkeypatch.setitem(os.environb, b"SCANS", os.fsencode(tmp_path) + b"/M\xfcller")
    settings, problems = structure({"root": "$SCANS"}, DataSettings)
    assert not problems
    assert settings
    assert os.fsencode(settings.root).endswith(b"/M\xfcller")
    again, _ = structure(unstructure(settings), DataSettings)
    assert again == settings


def test_what_is_not_utf8_on_the_command_line_is_one_line_with_the_way_out():
    """Point 16."""
    (line,) = map(str, Layers().lay_override("data.root=/data/M\udcfcller"))
    assert "is not UTF-8" in line
    assert "$SCANS" in line


def test_tensorboard_writes_into_a_folder_whose_name_is_not_utf8(tmp_path):
    """Point 16."""
    from medgen_builtins.callbacks._tensorboard import _nameable

    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    (Path(_nameable(folder)) / "events").write_text("x")
    assert (folder / "events").exists()
    assert _nameable(tmp_path) == str(tmp_path)
