"""Entry points become entries; what is broken is a row and disturbs nobody."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medgen.errors import PluginError
from medgen.registry import Registry

GOOD = """
from medgen import field, hookimpl, settings
medgen_api = 1

@settings
class {cls}:
    a: int = field(1, help="a number")
    def build(self, device): ...

@hookimpl
def medgen_losses():
    return {{"{name}": {cls}}}
"""
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
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
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
    assert any("medgen-broken 1.0" in problem for problem in registry.problems())


def test_what_a_plugin_prints_as_it_is_imported_stays_off_stdout(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("medgen-loud", "print('hello')\n" + GOOD.format(cls="Loud", name="loud"))
    assert Registry.load().get("losses", "loud")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello\n")


def test_a_plugin_that_is_broken_and_needed_is_an_error_with_the_reason(install: Install) -> None:
    install("medgen-needed", "import nosuchmodule", "needed")
    with pytest.raises(PluginError, match=r"losses.needed: .*No module named 'nosuchmodule' \(medgen-needed 1.0\)"):
        Registry.load().get("losses", "needed")


def test_a_name_that_two_distributions_give_is_an_error_only_when_it_is_used(install: Install) -> None:
    install("medgen-one", GOOD.format(cls="One", name="same"))
    install("medgen-two", GOOD.format(cls="Two", name="same"))
    registry = Registry.load()
    assert any("medgen-one 1.0 and medgen-two 1.0" in problem for problem in registry.problems())
    with pytest.raises(PluginError, match=r"losses.same: given by medgen-one 1.0 and medgen-two 1.0"):
        registry.get("losses", "same")


def test_a_built_in_is_never_shadowed_in_silence(install: Install) -> None:
    install("medgen-shadow", GOOD.format(cls="Shadow", name="mse"))
    with pytest.raises(PluginError, match=r"losses.mse: given by medgen .* and medgen-shadow 1.0"):
        Registry.load().get("losses", "mse")


def test_two_distributions_whose_entry_points_share_a_name_are_both_there(install: Install) -> None:
    install("medgen-first", GOOD.format(cls="First", name="first"), "shared")
    install("medgen-second", GOOD.format(cls="Second", name="second"), "shared")
    assert {"first", "second"} <= set(Registry.load().names("losses"))


def test_commands_of_plugins_are_found(install: Install) -> None:
    install(
        "medgen-command",
        "import click\nfrom medgen import hookimpl\nmedgen_api = 1\n"
        "@hookimpl\ndef medgen_commands(): return [click.Command('greet')]",
    )
    registry = Registry.load()
    assert "greet" in [command.name for command in registry.commands()]


def test_a_package_that_pip_installed_is_found_and_computes_its_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("setuptools")
    shutil.copytree(Path(__file__).parent / "medgen_huber", tmp_path / "source")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", "installed", "./source"]
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
        "import sys; from medgen.registry import Registry; r = Registry.load(); "
        "print([p for p in r.plugins if p.error and p.distribution == 'medgen'], "
        "sorted({'torch', 'monai', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
