"""A plugin that disturbs the process as it is imported leaves other plugins and the command as they were."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from faults.forkserver import HANG

from medgen.config.containment import contained
from medgen.config.plugin_hooks import BrokenPluginError

GOOD = """
from medgen import LossSettings, field, hookimpl, settings
medgen_api = 1

@settings
class Loss(LossSettings):
    '''A loss.'''
    a: int = field(1, help="a number")
    def build(self, device): ...

@hookimpl
def medgen_losses():
    return {"NAME": Loss}
"""
FINDER = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        raise KeyError(name)
"""
NASTY = {
    "folder": "import os; os.chdir('/')",
    "closes": "import sys; sys.stdout.close(); sys.stderr.close()",
    "closes_inner": "import sys; sys.stdout.buffer.close(); sys.__stderr__.close(); sys.__stdout__.close()",
    "rebinds": "import io, sys; sys.stdout = sys.stderr = io.StringIO()",
    "none": "import sys; sys.stdout = sys.stderr = None",
    "handles": "import os; os.close(1); os.close(2)",
    "writes": "import os; os.write(1, b'written past Python')",
    "others": "import subprocess; subprocess.run(['echo', 'another program'])",
    "errors": "import warnings; warnings.simplefilter('error')",
    "path": "import sys; sys.path.clear(); sys.meta_path[:-1] = []",
}
"""By the name of the loss that each gives nevertheless."""
BROKEN = {
    "first_finder": (FINDER + "sys.meta_path.insert(0, Finder())", "KeyError"),
    "finder": ("", "put a finder on sys.meta_path that fails with KeyError"),
    "no_finder": ("", "put a finder on sys.meta_path that fails with AttributeError"),
}
LAST = {
    "finder": FINDER + "sys.meta_path.insert(0, Finder())",
    "no_finder": "import sys; sys.meta_path.append(5)",
}
"""What stands below all imports."""


def install(site: Path, name: str, source: str) -> None:
    """What pip would leave of a package of one module."""
    about = site / f"medgen_{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (site / f"medgen_{name}.py").write_text(source)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: medgen-{name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[medgen]\n{name} = medgen_{name}\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them side by side, and one that is imported after all others."""
    folder = tmp_path_factory.mktemp("site")
    for name, line in NASTY.items():
        install(folder, name, f"{line}\n{GOOD.replace('NAME', name)}")
    for name, (source, _) in BROKEN.items():
        install(folder, name, f"{source}\n{GOOD.replace('NAME', name)}\n{LAST.get(name, '')}")
    docless = GOOD.replace("NAME", "docless").replace("'''A loss.'''", "__doc__ = 5")
    install(folder, "docless", docless + "\n__doc__ = 5\n")
    warns = "import warnings\nwarnings.warn('of the last')\n" + GOOD.replace("NAME", "zz_fine")
    install(folder, "zz_fine", warns)
    return folder


def medgen_with(
    site: Path, *words: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "medgen", *words]
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, timeout=HANG
    )


@pytest.fixture(scope="module")
def listed(site: Path) -> subprocess.CompletedProcess[str]:
    return medgen_with(site, "plugins", "list")


@pytest.mark.parametrize("name", [*NASTY, "docless", "zz_fine"])
def test_a_plugin_that_disturbs_the_process_is_listed_with_all_others(
    name: str, listed: subprocess.CompletedProcess[str]
) -> None:
    assert listed.returncode == 0, listed.stderr
    [row] = [each for each in listed.stdout.splitlines() if f"medgen-{name} 1.0" in each]
    assert row.split()[:2] == ["losses", name]


@pytest.mark.parametrize("name", BROKEN)
def test_a_finder_that_raises_breaks_the_plugin_that_has_put_it_there(
    name: str, listed: subprocess.CompletedProcess[str]
) -> None:
    [row] = [each for each in listed.stdout.splitlines() if f"medgen-{name} 1.0" in each]
    assert (row.split()[0], BROKEN[name][1] in row) == ("broken", True), row
    assert f"medgen-{name} 1.0" in listed.stderr  # whose last lines are warnings of what is broken


def test_what_is_written_past_python_stays_off_stdout(
    listed: subprocess.CompletedProcess[str],
) -> None:
    for text in ("written past Python", "another program"):
        assert (text in listed.stdout, text in listed.stderr) == (False, True)


def test_help_and_a_result_are_printed_whatever_is_installed(site: Path) -> None:
    shown = medgen_with(site, "--help")
    assert (shown.returncode, "Commands:" in shown.stdout) == (0, True), shown.stderr
    page = medgen_with(site, "plugins", "show", "docless")
    assert page.stdout.startswith("# losses docless, from medgen-docless 1.0\n"), page.stderr


def test_a_relative_path_of_the_command_line_is_where_it_was_given(
    site: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text('extends = "bravo_rflow"\n[run]\nseed = 7\n')
    shown = medgen_with(site, "recipe", "show", "mine.toml", "--only", "run", folder=tmp_path)
    assert (shown.returncode, "seed = 7" in shown.stdout) == (0, True), shown.stderr


def test_a_finder_that_works_stays_as_some_packages_need_theirs() -> None:
    class Finder:
        def find_spec(self, *_: object) -> None: ...

    finder, before = Finder(), list(sys.meta_path)
    try:
        with contained():
            sys.meta_path.append(finder)  # type: ignore[arg-type]
        assert finder in sys.meta_path
        with pytest.raises(BrokenPluginError, match="fails with AttributeError"), contained():
            sys.meta_path.append(5)  # type: ignore[arg-type]
    finally:
        sys.meta_path[:] = before


def test_filters_of_warnings_stay_unless_they_raise() -> None:
    with warnings.catch_warnings():
        with contained():
            warnings.filterwarnings("ignore", message="mine")
            warnings.filterwarnings("error", message="yours")
        kept = [
            each[0]
            for each in warnings.filters
            if getattr(each[1], "pattern", "") in ("mine", "yours")
        ]
    assert kept == ["ignore"]
