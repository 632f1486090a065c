"""What the machine and the user's account may lack: a name, a home folder; and how threads wait."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medgen.data.store import file_memo
from medgen.errors import StorageError
from medgen.system import surroundings

NAMELESS = """
import pwd, sys

def nobody(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = nobody
from medgen.cli.main import main

try:
    main(["recipe", "list"])
except SystemExit as ended:
    assert not ended.code, ended.code
import monai.networks.nets
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

print("reached", default_cache_dir())
"""
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """No cache folder is named, and temporary ones are below `tmp_path`."""
    for name in ("MEDGEN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(file_memo.tempfile, "tempdir", str(tmp_path))
    file_memo._temporary.cache_clear()
    yield tmp_path / f"medgen-{os.getuid()}"
    file_memo._temporary.cache_clear()


def test_a_user_id_without_a_name_gets_one_for_those_that_ask(monkeypatch):
    """Point 3: as monai and torch do while they are imported."""

    def nobody(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in NAMES:
        monkeypatch.setenv(name, "")  # and is as before after the test
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    surroundings.prepare()
    assert getpass.getuser() == f"uid{os.getuid()}"


@pytest.mark.slow
def test_a_user_id_without_a_name_can_import_what_training_needs():
    """Point 3."""
    environment = {key: value for key, value in os.environ.items() if key not in (*NAMES, "HOME")}
    environment["PYTHONPATH"] = os.pathsep.join(each for each in sys.path if each)
    done = subprocess.run(
        [sys.executable, "-c", NAMELESS], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"uid{os.getuid()}" in done.stdout.splitlines()[-1]


def test_a_name_that_is_known_stays(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    surroundings.prepare()
    assert os.environ["LOGNAME"] == "ada"


def test_threads_wait_passively_unless_the_user_says_otherwise(monkeypatch):
    """Point 32."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    surroundings.prepare()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    surroundings.prepare()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_without_a_home_slices_are_kept_in_a_private_temporary_folder(
    monkeypatch, homeless, capsys
):
    """Point 3."""

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert file_memo.cache_root() == homeless
    assert file_memo.cache_root() == homeless
    assert homeless.stat().st_mode & 0o777 == 0o700
    said = capsys.readouterr().err
    assert said.count("medgen: warning: HOME: is no folder that can be written") == 1
    assert "Set MEDGEN_CACHE" in said


@pytest.mark.parametrize("kind", ["file", "read-only", "/"])
def test_a_home_that_cannot_be_written_is_not_used(kind, monkeypatch, homeless, tmp_path):
    """Point 3: a root user may write everywhere, so where access is refused is told here."""
    home = Path("/") if kind == "/" else tmp_path / "home"
    if kind == "file":
        home.touch()
    elif kind == "read-only":
        home.mkdir()
    access = os.access
    monkeypatch.setattr(
        file_memo.os, "access", lambda path, mode: Path(path) != home and access(path, mode)
    )
    monkeypatch.setenv("HOME", str(home))
    if kind == "/":
        monkeypatch.setattr(file_memo.os.path, "exists", lambda path: path == home)
    assert file_memo.cache_root() == homeless


def test_a_home_that_can_be_written_has_the_cache_and_is_not_made_before_it_is_needed(
    monkeypatch, homeless, tmp_path
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert file_memo.cache_root() == tmp_path / "home" / ".cache" / "medgen"
    assert not (tmp_path / "home").exists()
    assert not homeless.exists()


def test_a_temporary_folder_of_someone_else_is_not_used(monkeypatch, homeless, tmp_path):
    (tmp_path / "home").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    homeless.mkdir()
    real = os.getuid()
    monkeypatch.setattr(file_memo.os, "getuid", lambda: real + 1)
    homeless.rename(tmp_path / f"medgen-{real + 1}")
    with pytest.raises(
        StorageError, match=r"another user's. Set MEDGEN_CACHE to a folder of yours\."
    ):
        file_memo.cache_root()
