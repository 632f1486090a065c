"""Entry points become entries; what is broken is a row and disturbs nobody.

Covers: medgen.api.hooks, medgen.config.entries, medgen.config.installed, medgen.config.plugin_loader,
medgen.config.plugin_hooks, medgen.system.interruptible.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from medgen.cli import options
from medgen.cli.main import cli
from medgen.config.recipe import load
from medgen.config.registry import Registry
from medgen.errors import PluginError, RecipeError

GOOD = """
from medgen import LossSettings, field, hookimpl, settings
medgen_api = 1

@settings
class {cls}(LossSettings):
    a: int = field(1, help="a number")
    def build(self, device): ...

@hookimpl
def medgen_losses():
    return {{"{name}": {cls}}}
"""
ANSWERS = [
    (
        "losses",
        "return None",
        "medgen_losses returned None, expected a dict of settings classes by name",
    ),
    ("losses", "return ['x']", "medgen_losses returned an object of type list, expected a dict"),
    ("modes", "return 'x'", "medgen_modes returned an object of type str, expected a dict"),
    ("spaces", "return {1: int}", "1 is no name for a plugin"),
    (
        "callbacks",
        "return {'a': int()}",
        "medgen_callbacks returned an object of type int as a, expected a settings",
    ),
    (
        "networks",
        "yield {}",
        "medgen_networks returned an object of type generator, expected a dict",
    ),
    ("strategies", "raise OSError(2, 'gone')", "FileNotFoundError: [Errno 2] gone"),
    ("commands", "return None", "medgen_commands returned None, expected a list of click commands"),
    ("commands", "return ['x']", "medgen_commands returned a list with an object of type str"),
    (
        "commands",
        "yield 1 / 0",
        "medgen_commands returned an object of type generator, expected a list",
    ),
    (
        "commands",
        "import itertools; return itertools.count()",
        "medgen_commands returned an object of type count",
    ),
    ("commands", "return 'greet'", "medgen_commands returned an object of type str"),
    (
        "commands",
        "import click; return click.Command('greet')",
        "medgen_commands returned an object of type Command",
    ),
    (
        "commands",
        "import click; return [click.Command('my cmd; rm')]",
        "'my cmd; rm' is no name for a command",
    ),
    ("commands", "import click; return [click.Command(None)]", "None is no name for a command"),
    ("commands", "import click; return [click.Command('a', help=5)]", "Error"),
    ("commands", "import click; return [click.Command('a')] * 2", "two commands with the name a"),
]
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """`install(distribution, source, entry_point)`: what pip would leave of a package of one module."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(distribution: str, source: str, entry_point: str = "", version: str = "1.0") -> None:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        about = tmp_path / f"{module}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (about / "entry_points.txt").write_text(f"[medgen]\n{entry_point or module} = {module}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return write


def broken(registry: Registry) -> dict[str, str]:
    return {plugin.name: plugin.error for plugin in registry.plugins if plugin.error}


def test_an_installed_plugin_is_listed_with_its_distribution(install: Install) -> None:
    install("medgen-good", GOOD.format(cls="Good", name="good"), version="2.5")
    entry = Registry.load().get("losses", "good")
    assert (entry.name, entry.distribution, entry.version) == ("good", "medgen-good", "2.5")
    assert entry.settings_class(a=2).a == 2


def test_every_loss_has_a_weight(install: Install) -> None:
    install("medgen-weighed", GOOD.format(cls="Weighed", name="weighed"))
    assert Registry.load().get("losses", "weighed").settings_class().weight == 1.0


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nosuchmodule", "ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("def", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise ValueError('a\\x1b[31m\\nb')", r"ValueError: a\x1b[31m\nb"),
        ("medgen_api = 2", "requires medgen plugin API 2 (have 1)"),
        ("", "declares no medgen_api (have 1)"),
        ("medgen_api = 1", "Is @hookimpl missing?"),
        (
            "from medgen import hookimpl\nmedgen_api = 1\n@hookimpl\ndef medgen_loses(): return {}",
            "medgen_loses is no hook of a plugin module. Did you mean medgen_losses?",
        ),
        (
            "from medgen import hookimpl\nmedgen_api = 1\n@hookimpl\ndef medgen_losses(device): return {}",
            "PluginValidationError",
        ),
        (
            "from medgen import hookimpl\nmedgen_api = 1\n@hookimpl\ndef medgen_losses(): return {'a': int}",
            "losses.a is no settings class",
        ),
        *(
            (
                f"from medgen import hookimpl\nmedgen_api = 1\n@hookimpl\ndef medgen_{hook}(): {body}",
                reason,
            )
            for hook, body, reason in ANSWERS
        ),
        (
            GOOD.format(cls="Good", name="x").replace("medgen_api = 1", "medgen_api = '1'"),
            "plugin API '1' (have 1)",
        ),
        ("class E(Exception):\n    def __str__(self): return self.nothing\nraise E", "E"),
        ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded"),
        ("raise ValueError('x' * 100_000)", "ValueError: xxxx"),
        (GOOD.format(cls="Escaping", name="../x"), "is no name for a plugin"),
        (GOOD.format(cls="Loss", name="x").replace("a: int", "weight: int"), "has a field weight"),
        (GOOD.format(cls="Vague", name="x").replace("a: int", "a: Nothing"), "NameError"),
    ],
)
def test_a_broken_plugin_is_a_row_with_the_reason_and_disturbs_no_other(
    install: Install, source: str, reason: str
) -> None:
    install("medgen-broken", source)
    install("medgen-fine", GOOD.format(cls="Fine", name="fine"))
    registry = Registry.load()
    assert reason in broken(registry)["medgen_broken"]
    assert registry.get("losses", "fine")
    assert registry.get("losses", "mse")
    [problem] = [
        problem for problem in map(str, registry.problems()) if "medgen-broken 1.0" in problem
    ]
    assert "/medgen_broken" in problem  # the file of the module, or of its metadata
    assert len(problem) < 1000


def test_what_a_plugin_prints_as_it_is_imported_stays_off_stdout(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("medgen-loud", "print('hello')\n" + GOOD.format(cls="Loud", name="loud"))
    assert Registry.load().get("losses", "loud")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello\n")


def test_a_plugin_that_is_broken_and_needed_is_an_error_with_the_reason(install: Install) -> None:
    install("medgen-needed", "import nosuchmodule", "needed")
    with pytest.raises(
        PluginError, match=r"losses.needed: .*No module named 'nosuchmodule' \(medgen-needed 1.0\)"
    ):
        Registry.load().get("losses", "needed")


def test_a_name_that_two_distributions_give_is_an_error_only_when_it_is_used(
    install: Install,
) -> None:
    install("medgen-one", GOOD.format(cls="One", name="same"))
    install("medgen-two", GOOD.format(cls="Two", name="same"))
    registry = Registry.load()
    assert any(
        "medgen-one 1.0 and medgen-two 1.0" in str(problem) for problem in registry.problems()
    )
    with pytest.raises(
        PluginError, match=r"losses.same: given by medgen-one 1.0 and medgen-two 1.0"
    ):
        registry.get("losses", "same")


def test_a_built_in_is_never_shadowed_in_silence(install: Install) -> None:
    install("medgen-shadow", GOOD.format(cls="Shadow", name="mse"))
    with pytest.raises(PluginError, match=r"losses.mse: given by medgen .* and medgen-shadow 1.0"):
        Registry.load().get("losses", "mse")


def test_two_distributions_whose_entry_points_share_a_name_are_both_there(install: Install) -> None:
    install("medgen-first", GOOD.format(cls="First", name="first"), "shared")
    install("medgen-second", GOOD.format(cls="Second", name="second"), "shared")
    assert {"first", "second"} <= set(Registry.load().names("losses"))


def damaged(registry: Registry, folder: Path) -> list[str]:
    """What is told of metadata, without the folder."""
    return [
        str(plugin.error).replace(f"{folder}/", "")
        for plugin in registry.plugins
        if str(folder) in str(plugin.error)
    ]


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        (
            "entry_points.txt",
            b"[medgen]\nfoo = \xff\xfe\n",
            "entry_points.txt: cannot be read (UnicodeDecodeError",
        ),
        (
            "entry_points.txt",
            "[medgen]\nfoo = a".encode("utf-16"),
            "entry_points.txt: cannot be read (UnicodeDecode",
        ),
        (
            "entry_points.txt",
            b"\xef\xbb\xbf[medgen]\nfoo = a",
            "entry_points.txt: cannot be read (ValueError: nothing",
        ),
        ("entry_points.txt", b"[medgen]\nfoo\n = = \n", "entry_points.txt: cannot be read ("),
        ("METADATA", b"", ": its metadata is missing, empty or has no name"),
        ("METADATA", b"Version: 1.0\n", ": its metadata is missing, empty or has no name"),
        ("METADATA", b"Name: \xff\xfe\n", ": its metadata cannot be read (UnicodeDecodeError"),
        ("METADATA", None, ": its metadata "),
    ],
)
def test_damaged_metadata_is_a_row_that_names_the_file_and_disturbs_no_other(
    install: Install, tmp_path: Path, file: str, content: bytes | None, told: str
) -> None:
    """Point 13."""
    install("medgen-torn", GOOD.format(cls="Torn", name="torn"))
    install("medgen-fine", GOOD.format(cls="Fine", name="fine"))
    path = tmp_path / "medgen_torn-1.0.dist-info" / file
    path.unlink() if content is None else path.write_bytes(content)
    registry = Registry.load()
    [row] = damaged(registry, tmp_path)
    assert row.startswith("medgen_torn-1.0.dist-info")
    assert told in row
    assert registry.get("losses", "fine")
    assert registry.get("losses", "mse")
    assert (registry.find("losses", "torn") is not None) == (
        file == "METADATA"
    )  # its module is as good as ever


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")]
)
def test_entry_points_that_may_not_be_read_are_a_row_as_they_may_hide_a_plugin(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """importlib takes a file without the right to read it for none. Not by mode, which root does not heed."""
    install("medgen-hidden", GOOD.format(cls="Hidden", name="hidden"))
    install("medgen-fine", GOOD.format(cls="Fine", name="fine"))
    file = tmp_path / "medgen_hidden-1.0.dist-info/entry_points.txt"

    def refusing(real: Callable[..., object]) -> Callable[..., object]:
        def call(self: Path, *given: object, **more: object) -> object:
            if self == file:
                raise error
            return real(self, *given, **more)

        return call

    for name in ("open", "read_text"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
    registry = Registry.load()
    [row] = damaged(registry, tmp_path)
    assert row.startswith("medgen_hidden-1.0.dist-info/entry_points.txt: cannot be read (")
    assert str(error.strerror) in row
    assert registry.get("losses", "fine")


def test_an_unknown_name_hints_at_the_broken_plugins_that_may_give_it(install: Install) -> None:
    """The entry point has another name than what the plugin would give."""
    with pytest.raises(RecipeError) as before:
        load("bravo_rflow", ["losses.ssim={}", "losses.mse=false"])
    assert "broken" not in str(before.value)
    install("medgen-zoo", "import nosuchmodule", "zoo")
    hint = "A broken plugin may be what gives it, of medgen-zoo 1.0: see `medgen plugins list`."
    for given in (["losses.ssim={}", "losses.mse=false"], ["strategy=ssim"], ["ssim.a=1"]):
        with pytest.raises(RecipeError) as after:
            load("bravo_rflow", given)
        assert str(after.value).endswith(hint), given
    with pytest.raises(
        PluginError, match=r"no such plugin, there are .* A broken plugin may be what gives it"
    ):
        Registry.load().get("losses", "ssim")


def test_of_many_broken_plugins_the_hint_names_a_few(install: Install) -> None:
    for number in range(7):
        install(f"medgen-zoo{number}", "import nosuchmodule")
    assert Registry.load().suspects().count("medgen-zoo") == 5


def test_what_is_no_plugin_may_be_as_damaged_as_it_likes(install: Install, tmp_path: Path) -> None:
    """Point 13."""
    for name in ("alpha", "beta", "gamma"):
        install(name, "")
        (tmp_path / f"{name}-1.0.dist-info/entry_points.txt").write_text(
            "[console_scripts]\nfoo\n = =\n"
        )
    (tmp_path / "alpha-1.0.dist-info/METADATA").unlink()
    (tmp_path / "beta-1.0.dist-info/entry_points.txt").unlink()
    assert damaged(Registry.load(), tmp_path) == []


def test_an_older_medgen_that_was_left_over_hides_no_built_in(
    install: Install, tmp_path: Path
) -> None:
    """Point 13: importlib would see the first distribution of a name only."""
    before = Registry.load()
    install("medgen", "import nosuch", "mse", version="0.0.1")
    registry = Registry.load()
    assert set(before.entries) == set(registry.entries)
    assert [each.name for each in before.commands()] == [each.name for each in registry.commands()]
    [row] = [plugin for plugin in registry.plugins if plugin.error]
    assert (row.name, row.version) == ("mse", "0.0.1")
    assert str(tmp_path) in row.file


def test_of_two_versions_in_one_folder_the_newer_counts_and_the_other_is_told(
    install: Install, tmp_path: Path
) -> None:
    """Point 13."""
    source = GOOD.format(cls="Kept", name="kept")
    for version in ("1.9", "1.10", "1.2"):
        install("medgen-kept", source, version=version)
    registry = Registry.load()
    assert registry.get("losses", "kept").version == "1.10"
    assert damaged(registry, tmp_path) == [
        f"medgen_kept-{version}.dist-info: left over beside medgen_kept-1.10.dist-info"
        for version in ("1.2", "1.9")
    ]


def test_what_an_interrupted_pip_left_is_told_and_not_loaded(
    install: Install, tmp_path: Path
) -> None:
    """Point 13."""
    install("medgen-half", "raise SystemExit", version="1.0")
    (tmp_path / "medgen_half-1.0.dist-info").rename(tmp_path / "~edgen_half-1.0.dist-info")
    registry = Registry.load()
    assert damaged(registry, tmp_path) == ["~edgen_half-1.0.dist-info: left by an interrupted pip"]
    assert "medgen_half" not in sys.modules


def test_a_plugin_does_not_change_how_others_log(install: Install) -> None:
    """Point 13."""
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    install(
        "medgen-chatty",
        "import logging\nlogging.basicConfig(level=1, force=True)\n"
        + GOOD.format(cls="C", name="c"),
    )
    assert Registry.load().get("losses", "c")
    assert (root.level, list(root.handlers)) == before


SLEEPS = """
import os, pathlib, time
try:
    pathlib.Path("ready").touch()
    time.sleep(600)
except BaseException:
    if {raises}:
        raise
"""


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (signal.SIGINT, 130, "medgen: interrupted: nothing more was written."),
        (
            signal.SIGTERM,
            75,
            "medgen: import of plugins: stopped by SIGTERM. Give the same command again.",
        ),
        (signal.SIGUSR1, 75, "medgen: import of plugins: stopped by SIGUSR1."),
    ],
)
def test_a_signal_ends_the_command_though_a_plugin_that_is_imported_may_swallow_it(
    install: Install, tmp_path: Path, raises: bool, number: int, code: int, told: str
) -> None:
    """Point 26."""
    install("medgen-slow", SLEEPS.format(raises=raises) + GOOD.format(cls="Slow", name="slow"))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "medgen", "plugins", "list"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate()[1]
    assert (process.returncode, said.strip().startswith(told)) == (code, True), said


def test_a_signal_in_a_thread_and_one_that_others_answer_are_left_to_them(install: Install) -> None:
    """Point 26: plugins are also looked up while a run answers signals itself."""
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        install(
            "medgen-hit",
            "import os, signal\nos.kill(os.getpid(), signal.SIGUSR1)\n"
            + GOOD.format(cls="H", name="h"),
        )
        assert Registry.load().get("losses", "h")
        assert heard == [signal.SIGUSR1]
        found: list[Registry] = []
        thread = threading.Thread(target=lambda: found.append(Registry.load()))
        thread.start()
        thread.join()
        assert found[0].get("losses", "h")
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_commands_of_plugins_are_found(install: Install) -> None:
    install(
        "medgen-command",
        "import click\nfrom medgen import hookimpl\nmedgen_api = 1\n"
        "@hookimpl\ndef medgen_commands(): return [click.Command('greet')]",
    )
    registry = Registry.load()
    assert "greet" in [command.name for command in registry.commands()]


COMMAND = """
import click
from medgen import hookimpl
medgen_api = 1

@click.command("NAME")
def command():
    click.echo("hello")

@hookimpl
def medgen_commands():
    return [command]
"""


@pytest.fixture
def data(install: Install) -> Iterator[Callable[..., Result]]:
    """Run `medgen data` with what is installed now."""

    def run(*words: str) -> Result:
        options.registry.cache_clear()
        return CliRunner().invoke(cli, ["data", *words])

    yield run
    options.registry.cache_clear()


def test_a_command_of_two_words_joins_the_group_data(
    install: Install, data: Callable[..., Result]
) -> None:
    install("medgen-command", COMMAND.replace("NAME", "data greet"))
    listed = data("--help").output.partition("Commands:")[2].splitlines()
    assert {"check", "demo", "greet", "prepare"} <= {line.split()[0] for line in listed if line}
    assert data("greet").output == "hello\n"
    assert data("greet", "--help").output.startswith("Usage: cli data greet [OPTIONS]\n")


def test_a_command_of_a_group_that_the_core_has_too_is_an_error_that_names_both(
    install: Install, data: Callable[..., Result]
) -> None:
    install("medgen-command", COMMAND.replace("NAME", "data check"))
    error = data("check", ".").exception
    assert str(error).startswith("command.data check: given by medgen ")
    assert "and medgen-command 1.0. Uninstall one of them." in str(error)
    assert data("demo", "--help").exit_code == 0


@pytest.mark.parametrize("name", ["train greet", "data ", "data  greet", "data greet you"])
def test_a_command_joins_no_other_group(install: Install, name: str) -> None:
    install("medgen-command", COMMAND.replace("NAME", name))
    (row,) = [
        plugin for plugin in Registry.load().plugins if plugin.distribution == "medgen-command"
    ]
    assert row.error == f"{name!r} is no name for a command: letters, digits, _ and - only"


def test_a_package_that_pip_installed_is_found_and_computes_its_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("setuptools")
    shutil.copytree(Path(__file__).parent / "medgen_huber", tmp_path / "source")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        *options,
        "--target",
        "installed",
        "./source",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    entry = Registry.load().get("losses", "huber")
    assert (entry.distribution, entry.version) == ("medgen-huber", "1.0")

    import torch

    from medgen import Noisy, Prediction

    zero = torch.zeros(2, 1, 2, 2)
    off = torch.tensor([0.05, 3.0]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    noisy = Noisy(zero, torch.zeros(2), zero, zero, torch.ones(2), torch.ones(2))
    loss = entry.settings_class(delta=0.1).build(torch.device("cpu"))(Prediction(off, off), noisy)
    torch.testing.assert_close(loss, torch.tensor([0.05**2 / 2, 0.1 * (3.0 - 0.05)]))


def test_every_built_in_is_sound_and_listing_imports_neither_torch_nor_monai() -> None:
    script = (
        "import sys; from medgen.config.registry import Registry; r = Registry.load(); "
        "print([p for p in r.plugins if p.error and p.distribution == 'medgen'], "
        "sorted({'torch', 'monai', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] []"
