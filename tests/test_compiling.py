"""A compiler that is missing or broken: a line and an eager run, or a line and an end, as the recipe says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medgen.training import compiling, dry_run

REAL = torch.compile
HEADER = (
    "CppCompileError: C++ compile error\n\nCommand:\n/usr/bin/g++ /tmp/header.hpp -O3 -fopenmp\n\nOutput:\n"
    "/tmp/header.hpp:3:10: fatal error: Python.h: No such file or directory\n\n\nSet TORCHDYNAMO_VERBOSE=1"
)
NO_COMPILER = "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')\n\nSet"
LINKER = "CppCompileError: C++ compile error\n\nCommand:\ng++ x\n\nOutput:\n/usr/bin/ld: cannot find -lstdc++: No such file"
DENIED = "PermissionError: [Errno 13] Permission denied: '/scratch/cache/th'\n\nSet TORCHDYNAMO_VERBOSE=1"
MOUNT = "ImportError: /tmp/cache/c.so: failed to map segment from shared object\n\nSet TORCHDYNAMO_VERBOSE=1"


class Broken:
    """In place of torch.compile: what it returns fails at its first call, or on its way back."""

    def __init__(self, text: str, where: str = "forward"):
        self.text, self.where, self.compiled = text, where, 0

    def __call__(self, turn):
        self.compiled += 1
        if self.where == "at once":
            raise RuntimeError(self.text)

        def call(*given):
            if self.where == "forward":
                raise RuntimeError(self.text)
            result = turn(*given)
            losses = dict(result.losses)
            for each in losses.values():
                each.register_hook(self.fail)
            return result

        return call

    def fail(self, _gradient):
        raise RuntimeError(self.text)


@pytest.fixture
def undecided(tiny):
    """Overrides that leave it to medgen whether to compile."""
    quiet = ("callbacks.previews=false", "training.validate_every=0", "training.steps=2")
    return (*(each for each in tiny if not each.startswith("training.compile")), *quiet)


def recorded(folder: Path) -> str:
    """What a run's recipe says of compiling."""
    return next(
        line
        for line in (folder / "recipe.toml").read_text().splitlines()
        if line.startswith("compile")
    )


@pytest.mark.parametrize(
    ("text", "says", "advice"),
    [
        (
            HEADER,
            "fatal error: Python.h: No such file or directory",
            "Install Python's headers (python3-dev)",
        ),
        (NO_COMPILER, "No working C++ compiler found", "Install a C++ compiler that works (g++)"),
        (
            LINKER,
            "/usr/bin/ld: cannot find -lstdc++",
            "Repair the C++ compiler (g++) or its libraries",
        ),
        (DENIED, "[Errno 13] Permission denied: '/scratch/cache/th'", compiling.CACHE),
        (MOUNT, "failed to map segment", compiling.CACHE),
        (
            "TritonMissing: Cannot find a working triton installation.",
            "Cannot find a working triton",
            "Install triton",
        ),
        (
            "LoweringException: AssertionError: \n  target: aten.x",
            "AssertionError",
            "Report it to torch",
        ),
        ("", "RuntimeError", "Report it to torch"),
    ],
)
def test_what_the_compiler_says_is_one_line_and_what_to_do(text, says, advice):
    """Point 4."""
    fault = compiling.read(RuntimeError(text))
    assert says in fault.what
    assert fault.advice.startswith(advice)
    assert "\n" not in fault.what
    assert len(fault.what) < 300


TORN = [
    "ImportError: {}/ab/cab.so: file too short\n\nSet TORCHDYNAMO_VERBOSE=1",
    "CppCompileError: C++ compile error\n\nOutput:\n/usr/bin/ld:{}/ab/cab.so: file format not recognized",
    "OSError: {}/ab/cab.so: invalid ELF header",
]


@pytest.mark.parametrize("text", TORN)
def test_a_library_that_is_there_in_part_is_told_with_the_folder_to_delete(
    text, tmp_path, monkeypatch
):
    """A killed process leaves one, and it fails until somebody deletes it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    fault = compiling.read(RuntimeError(text.format(tmp_path)))
    assert f"{tmp_path}/ab/cab.so" in fault.what
    assert fault.advice == f"Delete the compiler's cache, the folder {tmp_path},"
    elsewhere = compiling.read(RuntimeError(text.format("/usr/lib")))
    assert "Delete" not in elsewhere.advice


def test_an_error_in_what_the_compiler_made_may_come_of_its_cache(tmp_path, monkeypatch):
    """As torch says it if the library is damaged with which it looks what the processor can."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    text = "CppCompileError: C++ compile error\n\nOutput:\n{}/7x/c.main.cpp:29:1: error: 'Vectorized' was not declared"
    advice = compiling.read(RuntimeError(text.format(tmp_path))).advice
    assert advice == f"{compiling.BROKEN}, or delete its cache, the folder {tmp_path},"
    assert compiling.read(RuntimeError(text.format("/usr/include"))).advice == compiling.BROKEN


def test_with_a_library_that_is_there_in_part_a_run_is_eager(
    undecided, medgen, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(torch, "compile", Broken(TORN[0].format(tmp_path / "cache")))
    result = medgen("train", "bravo_rflow", *undecided, f"run.dir={tmp_path}/run")
    assert result.code == 0, result.err
    [line] = [each for each in result.err.splitlines() if "training.compile" in each]
    assert line.endswith(
        f"Delete the compiler's cache, the folder {tmp_path}/cache, before the next one."
    )


@pytest.mark.parametrize(
    ("number", "code", "name"), [(signal.SIGTERM, 75, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_signal_ends_a_compilation_at_once(
    number, code, name, wrapped, undecided, medgen, tmp_path, monkeypatch
):
    """A cold one takes minutes, and there is nothing to save. The compiler may wrap what was raised in it."""

    def slow(turn):
        try:
            os.kill(os.getpid(), number)
            time.sleep(300)
        except Exception as error:
            if not wrapped:
                raise
            raise RuntimeError("backend='inductor' raised") from error

    monkeypatch.setattr(torch, "compile", slow)
    began = time.monotonic()
    result = medgen("train", "bravo_rflow", *undecided, f"run.dir={tmp_path}/run")
    assert time.monotonic() - began < 200
    assert result.code == code, result.err
    said = f"medgen: {tmp_path}/run: stopped by {name} while it was compiled. Give the same command again."
    assert result.err.splitlines()[-1] == said
    assert not compiling.is_underway()


@pytest.mark.parametrize("where", ["at once", "forward", "backward"])
def test_by_default_a_compiler_that_fails_is_warned_of_once_and_the_run_is_eager(
    where, undecided, tiny, medgen, tmp_path, monkeypatch
):
    """Point 4: with the losses of a run that was never to be compiled."""
    broken = Broken(NO_COMPILER, where)
    monkeypatch.setattr(torch, "compile", broken)
    result = medgen("train", "bravo_rflow", *undecided, f"run.dir={tmp_path}/run")
    assert result.code == 0, result.err
    [line] = [each for each in result.err.splitlines() if "training.compile" in each]
    assert line.startswith(
        "medgen: warning: training.compile: torch's compiler failed (No working C++ compiler found"
    )
    assert line.endswith(
        "so this run is not compiled. Install a C++ compiler that works (g++) before the next one."
    )
    assert result.err.count("training.compile") == 1
    assert recorded(tmp_path / "run") == "compile = false"
    assert broken.compiled == 1
    eager = medgen(
        "train", "bravo_rflow", *undecided, "training.compile=false", f"run.dir={tmp_path}/eager"
    )
    assert eager.code == 0
    losses = [
        torch.load(tmp_path / name / "latest.pt", weights_only=True)["network"]
        for name in ("run", "eager")
    ]
    assert all(torch.equal(each, losses[1][name]) for name, each in losses[0].items())


def test_an_eager_run_stays_eager_where_it_could_be_compiled(
    undecided, medgen, tmp_path, monkeypatch
):
    """Point 4: decided once and kept."""
    monkeypatch.setattr(torch, "compile", Broken(NO_COMPILER))
    assert medgen("train", "bravo_rflow", *undecided, f"run.dir={tmp_path}/run").code == 0
    works = Broken("never", "not at all")
    monkeypatch.setattr(torch, "compile", works)
    again = medgen(
        "train",
        "bravo_rflow",
        *undecided[:-1],
        "training.steps=3",
        f"run.dir={tmp_path}/run",
        "--resume",
        "auto",
    )
    assert again.code == 0, again.err
    assert works.compiled == 0


def test_a_compiled_run_does_not_go_on_eager_unless_it_is_told_to(
    undecided, medgen, tmp_path, monkeypatch
):
    """Point 4: decided once and kept."""
    monkeypatch.setattr(torch, "compile", lambda turn: REAL(turn, backend="eager"))
    assert medgen("train", "bravo_rflow", *undecided, f"run.dir={tmp_path}/run").code == 0
    assert recorded(tmp_path / "run") == "compile = true"
    monkeypatch.setattr(torch, "compile", Broken(NO_COMPILER))
    more = ("train", "--resume", tmp_path / "run", "training.steps=3")
    result = medgen(*more)
    assert result.code == 2
    [line] = [each for each in result.err.splitlines() if "warning" not in each]
    assert "has been compiled up to step 2. Install a C++ compiler" in line
    assert line.endswith("or use training.compile=false.")
    assert medgen(*more, "training.compile=false").code == 0


@pytest.mark.parametrize("how", ["auto", "true"])
def test_a_signal_that_ends_the_compiler_too_decides_nothing(
    how, undecided, medgen, tmp_path, monkeypatch
):
    """Point 4: as a terminal and `timeout` send it to the compiler as well."""

    def interrupted(turn):
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError(HEADER)

    monkeypatch.setattr(torch, "compile", interrupted)
    result = medgen(
        "train", "bravo_rflow", *undecided, f"training.compile={how}", f"run.dir={tmp_path}/run"
    )
    assert result.code == 75
    assert "stopped by SIGTERM while it was compiled. Give the same command again." in result.err
    assert "training.compile" not in result.err
    assert (
        recorded(tmp_path / "run")
        == f"compile = {how if how == 'true' else chr(34) + how + chr(34)}"
    )


def test_compile_true_ends_in_one_line_where_it_fails(undecided, medgen, tmp_path, monkeypatch):
    """Point 4."""
    monkeypatch.setattr(torch, "compile", Broken(HEADER))
    result = medgen(
        "train", "bravo_rflow", *undecided, "training.compile=true", f"run.dir={tmp_path}/run"
    )
    assert result.code == 2
    [line] = [
        each
        for each in result.err.splitlines()
        if "warning" not in each and each.startswith("medgen: ")
    ]
    assert (
        "Python.h: No such file or directory). Install Python's headers (python3-dev), or use"
        in line
    )
    assert "\\n" not in line


def test_a_dry_run_says_that_it_is_not_compiled(undecided, medgen, monkeypatch):
    """Point 4."""
    monkeypatch.setattr(dry_run, "MEASURED", 0.0)
    monkeypatch.setattr(torch, "compile", Broken(NO_COMPILER))
    result = medgen("train", "bravo_rflow", *undecided, "--dry-run")
    assert result.code == 0, result.err
    assert ", not compiled: " in result.out
    assert result.err.count("training.compile") == 1


def test_trying_it_changes_nothing_of_the_run(undecided, medgen, tmp_path, monkeypatch):
    """Compiled without a backend that rounds otherwise, a run has the bits of an eager one."""
    monkeypatch.setattr(torch, "compile", Broken("never", "not at all"))
    monkeypatch.setattr(Broken, "fail", lambda self, gradient: gradient)
    for name in ("true", "false"):
        given = (
            f"training.compile={name}",
            "network.unet.dropout=0.1",
            f"run.dir={tmp_path}/{name}",
        )
        assert medgen("train", "bravo_rflow", *undecided, *given).code == 0
    one, two = (
        torch.load(tmp_path / name / "latest.pt", weights_only=True)["network"]
        for name in ("true", "false")
    )
    assert all(torch.equal(each, two[name]) for name, each in one.items())


@pytest.mark.slow
def test_without_a_compiler_torchs_own_words_are_read(tmp_path, cohort):
    """Point 4, with the real one."""
    small = (
        "data.image_size=16",
        "data.workers=1",
        "data.min_foreground=0.02",
        "network.unet.channels=[8,16]",
    )
    given = (
        f"data.root={cohort}",
        *small,
        "training.steps=1",
        "training.batch_size=2",
        f"run.dir={tmp_path}/run",
    )
    paths = os.pathsep.join(each for each in sys.path if each)
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "CXX": "/nonexistent",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
    }
    command = [
        sys.executable,
        "-m",
        "medgen",
        "train",
        "bravo_rflow",
        *given,
        "callbacks.previews=false",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "so this run is not compiled. Install a C++ compiler that works (g++)" in done.stderr
