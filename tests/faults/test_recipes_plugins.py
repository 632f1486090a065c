"""Recipes and plugins of any quality, through the command line: one line, the right exit code, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from faults.variants import SMALL

from medgen.cli import options
from medgen.run import checkpoint

Run = Callable[..., Any]
GOOD = """
from medgen import LossSettings, field, gt, hookimpl, settings
medgen_api = 1

@settings
class Loss(LossSettings):
    '''A loss.'''
    a: float = field(1.0, help="a number", check=gt(0))
    def build(self, device):
        return lambda prediction, noisy: (prediction.target - noisy.target).abs().flatten(1).mean(1)

@hookimpl
def medgen_losses():
    return {"NAME": Loss}
"""
CALLBACK = """
from medgen import Callback, CallbackSettings, field, hookimpl, settings
medgen_api = 1

class Failing(Callback):
    @hookimpl
    def HOOK(self, run):
        if run.step >= 2:
            raise ZeroDivisionError("division by zero")

@settings
class Settings(CallbackSettings):
    '''Fails.'''
    def build(self, run):
        return Failing()

@hookimpl
def medgen_callbacks():
    return {"failing": Settings}
"""
COMMAND = """
import click
from medgen import hookimpl
medgen_api = 1

@click.command("NAME")
def command():
    '''Greet the WHO.

    At length.
    '''
    click.echo("hello")

@hookimpl
def medgen_commands():
    return [command]
"""
BROKEN = {
    "none": (
        "from medgen import hookimpl\nmedgen_api = 1\n@hookimpl\ndef medgen_losses(): return None",
        "returned None",
    ),
    "words": (
        "from medgen import hookimpl\nmedgen_api = 1\n@hookimpl\ndef medgen_commands(): return ['x']",
        "medgen_commands returned a list with an object of type str",
    ),
    "nosuch": ("import nosuch", "ModuleNotFoundError: No module named 'nosuch'"),
    "syntax": ("def", "SyntaxError: invalid syntax"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "newer": ("medgen_api = 3", "requires medgen plugin API 3 (have 1)"),
    "undeclared": ("x = 1", "declares no medgen_api"),
    "signature": (
        "from medgen import hookimpl\nmedgen_api = 1\n@hookimpl\ndef medgen_losses(device): return {}",
        "PluginValidationError",
    ),
    "nasty": (r"raise ValueError('a\x1b[31m\nb')", r"ValueError: a\x1b[31m\nb"),
}


def install(site: Path, distribution: str, source: str, entry_point: str) -> None:
    """What pip would leave of a package of one module."""
    module = distribution.replace("-", "_")
    about = site / f"{module}-1.0.dist-info"
    about.mkdir(parents=True)
    (site / f"{module}.py").write_text(source)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[medgen]\n{entry_point} = {module}\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound distributions and all kinds of broken ones, installed side by side."""
    folder = tmp_path_factory.mktemp("site")
    for name, (source, _) in BROKEN.items():
        install(folder, f"bad-{name}", source, name)
    loud = "import warnings\nprint('I am loud')\nwarnings.warn('and I warn')\n"
    install(folder, "good-loud", loud + GOOD.replace("NAME", "loud"), "loud")
    for name, who in {"greet": "one", "twice": "two", "train": "three"}.items():
        install(
            folder,
            f"command-{who}",
            COMMAND.replace("NAME", name).replace("WHO", who),
            f"command_{who}",
        )
    install(folder, "command-four", COMMAND.replace("NAME", "twice"), "command_four")
    (folder / "torn-1.0.dist-info").mkdir()
    (folder / "torn-1.0.dist-info/entry_points.txt").write_bytes(b"[medgen]\ntorn = \xff")
    install(folder, "good-one", GOOD.replace("NAME", "same"), "one")
    install(folder, "good-two", GOOD.replace("NAME", "same"), "two")
    install(folder, "bad-shadow", GOOD.replace("NAME", "mse"), "mse")
    for hook in ("medgen_step_end", "medgen_validate"):
        install(folder / hook, "bad-callback", CALLBACK.replace("HOOK", hook), "failing")
    return folder


def medgen_with(site: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which finds what is installed in `site` as any process would."""
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "medgen", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def listed(site: Path) -> subprocess.CompletedProcess[str]:
    return medgen_with(site, "plugins", "list")


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.row("P1")
def test_a_broken_plugin_is_a_row_with_its_reason(
    listed: subprocess.CompletedProcess[str], name: str
) -> None:
    assert listed.returncode == 0, listed.stderr
    assert "Traceback" not in listed.stderr
    [row] = [line for line in listed.stdout.splitlines() if f"bad-{name} 1.0" in line]
    assert row.startswith("broken")
    assert BROKEN[name][1] in row


@pytest.mark.row("P1")
def test_what_a_plugin_prints_stays_off_stdout(listed: subprocess.CompletedProcess[str]) -> None:
    assert "I am loud" not in listed.stdout
    assert "I am loud" in listed.stderr
    assert any("loud" in line and "good-loud 1.0" in line for line in listed.stdout.splitlines())


def test_every_command_of_a_plugin_is_a_row_with_what_it_is_for(
    listed: subprocess.CompletedProcess[str],
) -> None:
    """Point 30."""
    rows = [
        line.split(maxsplit=4) for line in listed.stdout.splitlines() if line.startswith("command ")
    ]
    assert ["command", "greet", "command-one", "1.0", "Greet the one."] in [
        [each.strip() for each in row] for row in rows
    ]
    assert {"slurm", "lr-find", "verify-resume", "latent-audit"} <= {
        row[1] for row in rows if row[2] == "medgen"
    }
    assert all(len(row) == 5 for row in rows)


def test_show_has_the_help_of_a_command(site: Path) -> None:
    """Point 30."""
    shown = medgen_with(site, "plugins", "show", "greet").stdout
    assert shown.startswith(
        "# command greet, from command-one 1.0\nUsage: medgen greet [OPTIONS]\n"
    )
    assert "At length." in shown
    core = medgen_with(site, "plugins", "show", "generate")
    assert core.returncode == 5
    line = "medgen: generate: a command of medgen itself, no plugin. See `medgen generate --help`."
    assert core.stderr.splitlines()[-1] == line


def test_metadata_that_cannot_be_read_is_a_row_that_names_the_file(
    listed: subprocess.CompletedProcess[str], site: Path
) -> None:
    """Point 13."""
    [row] = [line for line in listed.stdout.splitlines() if "torn 1.0" in line]
    assert row.startswith("broken")
    assert f"{site}/torn-1.0.dist-info/entry_points.txt: cannot be read" in row


@pytest.mark.parametrize(
    ("words", "givers"),
    [
        (("twice",), "command-four 1.0 and command-two 1.0"),
        (("twice", "--help"), "command-four 1.0 and command-two 1.0"),
        (("train", "bravo_rflow", "--dry-run"), "medgen 0.1.0 and command-three 1.0"),
    ],
)
def test_a_command_that_two_give_is_an_error_that_names_both(
    site: Path, listed: subprocess.CompletedProcess[str], words: tuple[str, ...], givers: str
) -> None:
    """Point 13."""
    done = medgen_with(site, *words)
    line = f"command.{words[0]}: given by {givers}. Uninstall one of them."
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.splitlines()[-1] == f"medgen: {line}"
    assert f"medgen: warning: {line}" in listed.stderr


def test_no_command_is_taken_down_by_what_others_install(site: Path) -> None:
    """Point 13."""
    done = medgen_with(site, "--help")
    assert done.returncode == 0, done.stderr
    rows = dict(
        line.split(maxsplit=1) for line in done.stdout.partition("Commands:\n")[2].splitlines()
    )
    assert rows["greet"] == "Greet the one."
    assert rows["train"] == "Given by medgen 0.1.0 and command-three 1.0."
    assert {"generate", "data", "slurm", "twice"} <= rows.keys()
    assert medgen_with(site, "greet").stdout == "hello\n"
    assert medgen_with(site, "recipe", "list").returncode == 0


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.row("P1")
def test_what_needs_a_broken_plugin_ends_with_5_and_its_reason(site: Path, name: str) -> None:
    done = medgen_with(
        site, "recipe", "show", "bravo_rflow", f"losses.{name}.x=1", "losses.mse=false"
    )
    assert done.returncode == 5, done.stderr
    assert BROKEN[name][1] in done.stderr
    assert f"(bad-{name} 1.0)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.row("P1")
def test_a_recipe_that_needs_none_of_them_is_not_disturbed(site: Path) -> None:
    done = medgen_with(site, "recipe", "show", "bravo_ddpm", "losses.loud.a=2")
    assert done.returncode == 0, done.stderr
    assert "[losses.loud]\na = 2.0" in done.stdout


@pytest.mark.parametrize(
    ("name", "by"),
    [("same", "good-one 1.0 and good-two 1.0"), ("mse", "bad-shadow 1.0 and medgen 0.1.0")],
)
@pytest.mark.row("P2")
def test_a_name_that_two_give_is_an_error_that_names_both(site: Path, name: str, by: str) -> None:
    done = medgen_with(site, "recipe", "show", "bravo_ddpm", f"losses.{name}.weight=1")
    assert done.returncode == 5, done.stderr
    assert f"losses.{name}: given by {by}. Uninstall one of them." in done.stderr


@pytest.mark.parametrize("hook", ["medgen_step_end", "medgen_validate"])
@pytest.mark.row("P3")
def test_a_callback_that_fails_is_named_with_its_hook_and_the_step_is_saved(
    site: Path,
    tiny: tuple[str, ...],
    tmp_path: Path,
    medgen: Run,
    hook: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(site / hook))
    monkeypatch.setattr(options, "registry", lru_cache(options.registry.__wrapped__))
    monkeypatch.delitem(sys.modules, "bad_callback", raising=False)
    run = tmp_path / "run"
    given = (*tiny, *SMALL, "training.steps=6", "training.epoch_steps=2", f"run.dir={run}")
    done = medgen("train", "bravo_rflow", *given, "callbacks.failing={}")
    assert done.code == 5, done.err
    line = done.err.splitlines()[-1]
    assert line.startswith(
        f"medgen: callbacks.failing: {hook}: failed with ZeroDivisionError: division by zero, at step 2"
    )
    assert "Traceback" not in done.err
    assert checkpoint.load(run / "latest.pt")["position"]["step"] == 2


# Recipes

SOUND = 'extends = "bravo_rflow"\n'
FILES = {
    "syntax": (b"[data\nroot = 3", "x.toml:1"),
    "duplicate key": (b"[data]\nroot = 'a'\nroot = 'b'", "x.toml:3"),
    "latin-1": ("# Z\xfcrich".encode("latin-1"), "x.toml:1: byte 0xfc is not UTF-8"),
    "UTF-16": (SOUND.encode("utf-16"), "is not UTF-8"),
    "NUL": (SOUND.encode() + b"\0", "x.toml:2"),
    "5,000 levels": (b"a = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
    "5,000 digits": (b"a = " + b"9" * 5000, "too many digits"),
    "empty": (b"", "x.toml: mode: missing"),
    "unknown key": (SOUND.encode() + b"[training]\nepoch = 3", "Did you mean epochs?"),
    "true for a number": (
        SOUND.encode() + b"[training]\nepochs = true",
        "got true, expected an integer",
    ),
    "text for a number": (
        SOUND.encode() + b'[training]\nepochs = "100"',
        'got "100", expected an integer',
    ),
    "nan": (SOUND.encode() + b"[training]\nlearning_rate = nan", "training.learning_rate: got nan"),
    "inf": (SOUND.encode() + b"[training]\nclip = inf", "training.clip: got inf"),
    "date": (
        SOUND.encode() + b"[training]\nepochs = 2026-01-01",
        "training.epochs: got 2026-01-01",
    ),
    "out of range": (SOUND.encode() + b"[training]\nbatch_size = 0", "training.batch_size: got 0"),
    "all at once": (
        SOUND.encode() + b"[trainig]\n[data]\nimage_size = 1\n",
        "data.image_size: got 1",
    ),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "command", [["train"], ["recipe", "show"], ["data", "prepare"]], ids=" ".join
)
@pytest.mark.row("T1", "T2")
def test_a_file_that_is_no_recipe_is_told_by_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medgen: Run, name: str, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    content, told = FILES[name]
    Path("x.toml").write_bytes(content)
    ended = medgen(*command, "x.toml")
    assert ended.code == 2
    assert told in ended.err
    assert all(line.startswith("medgen: x.toml") for line in ended.err.splitlines())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.toml"]


@pytest.mark.row("T1")
def test_a_byte_order_mark_is_fine(tmp_path: Path, medgen: Run) -> None:
    (tmp_path / "x.toml").write_text("\ufeff" + SOUND, "utf-8")
    assert medgen("recipe", "show", tmp_path / "x.toml").code == 0


@pytest.mark.usefixtures("no_hang")
@pytest.mark.row("T1")
def test_a_folder_a_pipe_and_nothing_are_told(tmp_path: Path, medgen: Run) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for path, told in {
        tmp_path: "is a folder",
        tmp_path / "pipe.toml": "no regular file",
        tmp_path / "no": "no such",
    }.items():
        ended = medgen("train", path)
        assert ended.code == 2
        assert told in ended.err


@pytest.mark.row("T2")
def test_mistakes_are_told_before_torch_and_monai_are_imported(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(SOUND + "[training]\nepoch = 3\n[strategy.rflw]\n")
    script = (
        "import sys; from medgen.cli.main import main\n"
        f"try: main(['train', {str(tmp_path / 'x.toml')!r}])\n"
        "except SystemExit as ended: print(ended.code, sorted({'torch', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "2 []\n"
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("root", ["~/nowhere", "$MY_SCANS/nowhere", "../nowhere"])
@pytest.mark.row("T3")
def test_a_path_that_leads_nowhere_is_told_at_the_start_as_it_was_resolved(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medgen: Run
) -> None:
    monkeypatch.setenv("MY_SCANS", "/scans/of/mine")
    ended = medgen("train", "bravo_rflow", f"data.root={root}", f"run.dir={tmp_path / 'run'}")
    assert ended.code == 3
    assert os.path.expandvars(os.path.expanduser(root)) in ended.err
    assert "does not exist" in ended.err
    assert not (tmp_path / "run/latest.pt").exists()


@pytest.mark.row("T3")
def test_a_missing_checkpoint_is_told_at_the_start(
    tiny: tuple[str, ...], tmp_path: Path, medgen: Run
) -> None:
    options = (*tiny, "training.init_from=nowhere.pt", f"run.dir={tmp_path / 'run'}")
    ended = medgen("train", "bravo_rflow", *options)
    assert ended.code == 4
    assert ended.err.splitlines()[-1] == "medgen: nowhere.pt: no such checkpoint. Check the path."
