"""An error of a plugin has the plugin's name and its exit code, one of the machine has the machine's.

Covers: medgen.config.blame, medgen.training.blame.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest
import torch

from medgen import Callback, hookimpl
from medgen.api.hooks import Lifecycle
from medgen.run import folder
from medgen.training import blame

Run = Callable[..., Any]
KINDS = """
import errno
import os
from torch import nn
from medgen import Callback, CallbackSettings, LossSettings, ModeSettings, NetworkSettings, hookimpl, settings
medgen_api = 1

def fails(number):
    raise OSError(number, os.strerror(number), "of_the_plugin")

class Hooked(Callback):
    @hookimpl
    def medgen_step_end(self, run, losses):
        {in_hook}

@settings
class Loss(LossSettings):
    '''A loss.'''
    def build(self, device):
        {in_loss}
        def loss(prediction, noisy):
            {in_step}
            return (prediction.target - noisy.target).abs().flatten(1).mean(1)
        return loss

@settings
class Hooks(CallbackSettings):
    '''A callback.'''
    def build(self, run):
        {in_callback}
        return Hooked()

@settings
class Network(NetworkSettings):
    '''A network.'''
    def build(self, in_channels, out_channels):
        {in_network}

@settings
class Mode(ModeSettings):
    '''A mode.'''
    def build(self):
        {in_mode}

@hookimpl
def medgen_losses():
    return {{"odd_loss": Loss}}

@hookimpl
def medgen_callbacks():
    return {{"odd_hooks": Hooks}}

@hookimpl
def medgen_networks():
    return {{"odd_network": Network}}

@hookimpl
def medgen_modes():
    return {{"odd_mode": Mode}}
"""
USES = {
    "loss": ("losses.mse=false", "losses.odd_loss={}"),
    "step": ("losses.mse=false", "losses.odd_loss={}"),
    "callback": ("callbacks.odd_hooks={}",),
    "hook": ("callbacks.odd_hooks={}",),
    "network": ("network=odd_network",),
    "mode": ("mode=odd_mode",),
}


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medgen: Run, tiny: tuple[str, ...]) -> Run:
    """`odd("loss", "1 / 0")`: the result of training with a plugin of which a function has that line."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    about = tmp_path / "site/medgen_odd-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: medgen-odd\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[medgen]\nodd = medgen_odd\n")

    def run(where: str, line: str, *more: str) -> Any:
        lines = {f"in_{each}": "pass" for each in USES} | {f"in_{where}": line}
        (tmp_path / "site/medgen_odd.py").write_text(KINDS.format(**lines))
        monkeypatch.delitem(sys.modules, "medgen_odd", raising=False)
        registry_cached()
        small = [each for each in tiny if where != "network" or not each.startswith("network.")]
        options = (
            "callbacks.previews=false",
            "callbacks.tensorboard=false",
            "training.steps=2",
            *USES[where],
        )
        return medgen("train", "bravo_rflow", *small, *options, f"run.dir={tmp_path}/run", *more)

    yield run
    registry_cached()


def registry_cached() -> None:
    """Forget what is installed."""
    from medgen.cli import options

    options.registry.cache_clear()


@pytest.mark.parametrize(
    ("where", "table"),
    [
        ("loss", "losses.odd_loss"),
        ("callback", "callbacks.odd_hooks"),
        ("network", "network.odd_network"),
        ("mode", "mode.odd_mode"),
    ],
)
def test_a_build_that_raises_is_the_plugins_and_no_bug_of_medgen(
    where: str, table: str, odd: Run
) -> None:
    for line, said in {
        "raise ValueError('no such thing')": "ValueError: no such thing",
        "fails(errno.ENOENT)": "FileNotFoundError: [Errno 2] No such file or directory: 'of_the_plugin'",
        "fails(errno.EACCES)": "PermissionError: [Errno 13] Permission denied: 'of_the_plugin'",
    }.items():
        ended = odd(where, line)
        assert ended.code == 5, ended.err
        [last] = [each for each in ended.err.splitlines() if table in each]
        assert last == f"medgen: {table}: its build failed with {said}. Repair or replace it."


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (
            "network",
            "network.odd_network: its build returned an object of type NoneType, expected a Module.",
        ),
        (
            "callback",
            "callbacks.odd_hooks: its build returned an object of type int, expected a Callback.",
        ),
    ],
)
def test_a_build_that_returns_something_else_is_told(where: str, said: str, odd: Run) -> None:
    ended = odd(where, "return 3" if where == "callback" else "pass")
    assert (ended.code, said in ended.err) == (5, True), ended.err


@pytest.mark.parametrize(
    ("where", "table"), [("step", "losses.odd_loss"), ("hook", "callbacks.odd_hooks")]
)
@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ECONNREFUSED])
def test_an_error_of_the_system_in_a_plugin_is_the_plugins(
    where: str, table: str, number: int, odd: Run
) -> None:
    """And gives no advice on the run's folder."""
    ended = odd(where, f"fails({number})")
    assert ended.code == 5, ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith(f"medgen: {table}: ")
    assert f"[Errno {number}] {os.strerror(number)}: 'of_the_plugin', at step" in last


MACHINE = [
    (errno.EMFILE, 8, "ulimit -n), or lower data.workers"),
    (errno.ENFILE, 8, "end some, or lower data.workers"),
    (errno.ENOMEM, 7, "Lower data.workers, or use a smaller network, image or batch"),
    (errno.ENOSPC, 8, "Make room on that file system"),
    (errno.EDQUOT, 8, "Make room within your quota"),
    (errno.EIO, 8, "See that the disk or the network file system works"),
    (errno.EROFS, 8, "Mount it for writing, or choose a folder that can be written"),
]


@pytest.mark.parametrize(
    ("number", "code", "advice"), MACHINE, ids=[errno.errorcode[each] for each, *_ in MACHINE]
)
def test_what_the_machine_lacks_has_words_and_a_code_of_its_own_whoever_meets_with_it(
    number: int, code: int, advice: str, odd: Run, tmp_path: Path
) -> None:
    ended = odd("step", f"fails({number})")
    assert ended.code == code, ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith(f"medgen: of_the_plugin: {os.strerror(number)}. ")
    assert advice in last
    assert "writable" not in last
    assert folder._about(tmp_path / "run")["failure"]["exit_code"] == code


def test_no_right_to_a_file_is_told_as_that(odd: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In medgen's own files."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "metadata.json")

    monkeypatch.setattr(folder, "write_metadata", refuse)
    ended = odd("callback", "pass")
    assert ended.code == 8
    said = (
        "medgen: metadata.json: Permission denied. Get the right to read and write it, then go on."
    )
    assert ended.err.splitlines()[-1] == said


def test_an_error_of_the_system_that_is_no_refusal_is_a_bug(
    odd: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not a matter of the run's folder."""
    from medgen.training import trainer

    def fail(*_: object) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    monkeypatch.setattr(trainer.Trainer, "fit", fail)
    ended = odd("callback", "pass")
    assert (ended.code, "A bug in medgen or a plugin" in ended.err) == (1, True), ended.err


class Outer(Callback):
    """Its hook for validation is called within its hook for the fit."""

    @hookimpl
    def medgen_fit(self, run):
        run.hook.medgen_validate(run=run)

    @hookimpl(wrapper=True)
    def medgen_validate(self, run):
        return (yield)


class Inner(Callback):
    """Raises in a function of its own, below a hook with a decorator."""

    @hookimpl
    @torch.no_grad()
    def medgen_validate(self, run):
        self.measure()

    def measure(self):
        raise ZeroDivisionError


def test_the_innermost_callback_of_an_error_is_named_with_its_hook() -> None:
    plugins = pluggy.PluginManager("medgen")
    plugins.add_hookspecs(Lifecycle)
    callbacks = {"outer": Outer(), "inner": Inner()}
    for each in callbacks.values():
        plugins.register(each)
    run = SimpleNamespace(plugins=plugins, callbacks=callbacks)
    with pytest.raises(ZeroDivisionError) as raised:
        plugins.hook.medgen_fit(run=plugins)
    assert blame._callback_at_fault(run, raised.value) == "inner: medgen_validate"
    plugins.unregister(callbacks["inner"])
    assert blame._callback_at_fault(run, raised.value) == "outer: medgen_fit"
    assert blame._callback_at_fault(run, ZeroDivisionError()) is None
