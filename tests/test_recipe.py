"""Files, layers and overrides become a recipe, and back; every mistake is told at once.

Covers: medgen.api.recipe, medgen.config.advice, medgen.config.checks, medgen.config.overlay, medgen.config.recipe,
medgen.config.recipe_files, medgen.config.resolver, medgen.errors.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medgen import (
    CallbackSettings,
    LossSettings,
    NetworkSettings,
    SpaceSettings,
    StrategySettings,
    field,
    gt,
    settings,
)
from medgen.api.recipe import Recipe
from medgen.config.entries import Entry, Plugin
from medgen.config.recipe import from_toml, load, public_toml, shipped, to_toml
from medgen.config.recipe_files import recipes_dir
from medgen.config.registry import Registry
from medgen.errors import MedgenError, PluginError, Problem, RecipeError


@settings
class Plain(StrategySettings):
    a: int = field(1, check=gt(0))
    where: Path | None = field(None)


@settings
class Other(StrategySettings):
    b: tuple[int, ...] = field((1, 2))


@settings
class Anywhere(SpaceSettings):
    pass


@settings
class Careful(NetworkSettings):
    parts: int = field(4)

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        if recipe.data.image_size % self.parts:
            size = recipe.data.image_size
            what = f"got {size}, no multiple of network.careful.parts = {self.parts}"
            yield Problem("data.image_size", what, "Change it")


@settings
class Greedy(LossSettings):
    needs = ("logvar",)
    weight: float = field(1.0)


@settings
class Weighed(LossSettings):
    weight: float = field(1.0)


@settings
class Raising(CallbackSettings):
    def check(self, recipe: Recipe) -> Iterator[Problem]:
        raise TypeError("no")


@settings
class Telling(CallbackSettings):
    def check(self, recipe: Recipe) -> Iterator[Problem]:
        yield "callbacks.telling: wrong"  # type: ignore[misc]


KNOWN: dict[str, dict[str, type]] = {
    "mode": {"seg": Plain, "dual": Plain},
    "strategy": {"rflow": Plain, "ddpm": Other},
    "space": {"pixel": Anywhere},
    "network": {"careful": Careful},
    "losses": {"mse": Weighed, "greedy": Greedy},
    "callbacks": {"ema": Plain, "progress": Other, "raising": Raising, "telling": Telling},
}
ENTRIES = [
    Entry(kind, name, cls, "made-up", "1.0")
    for kind, names in KNOWN.items()
    for name, cls in names.items()
]
REGISTRY = Registry([Plugin("broken", "bad", "1.0", error="ImportError: x")], ENTRIES)
SOUND = """
[mode.seg]
[strategy.rflow]
a = 2
[space.pixel]
[network.careful]
[losses.mse]
[callbacks.ema]
[training]
epochs = 5
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """`write(text, name)` writes a recipe and gives its path, relative to the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "x.toml") -> Path:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
        return Path(name)

    return write


def problems(path: str | Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides, registry=REGISTRY)
    return caught.value.lines


def test_a_recipe_has_all_defaults_filled_in(write: Write) -> None:
    recipe = load(write(SOUND), registry=REGISTRY)
    assert (recipe.strategy, recipe.names["strategy"]) == (Plain(a=2), "rflow")
    assert (recipe.training.epochs, recipe.training.batch_size, recipe.run.root) == (
        5,
        16,
        Path("runs"),
    )
    assert recipe.loss_weights == {"mse": 1.0}


def test_what_is_shown_loads_to_an_equal_recipe(write: Write) -> None:
    recipe = load(
        write(SOUND),
        ["mode.seg.where=a b", "losses.mse.weight=0.5", "run.dir=r"],
        registry=REGISTRY,
    )
    assert from_toml(to_toml(recipe), REGISTRY) == recipe


def test_only_one_table_can_be_shown(write: Write) -> None:
    recipe = load(write(SOUND), registry=REGISTRY)
    assert to_toml(recipe, "strategy") == "[strategy.rflow]\na = 2\n"
    with pytest.raises(RecipeError, match="Did you mean training"):
        to_toml(recipe, "trainig")


def test_what_leaves_the_machine_has_no_paths_and_still_loads(write: Write) -> None:
    recipe = load(
        write(SOUND),
        ["data.root=/secret", "mode.seg.where=/secret", "run.dir=/secret"],
        registry=REGISTRY,
    )
    text = public_toml(recipe)
    assert "secret" not in text
    assert from_toml(text, REGISTRY).strategy == recipe.strategy


def test_later_wins_extends_recipe_layers_overrides(write: Write) -> None:
    write(SOUND + "batch_size = 1\nclip = 1\nwarmup_steps = 1", "base/a.toml")
    write("[training]\nwarmup_steps = 3\nclip = 3", "layer.toml")
    path = write('extends = "base/a.toml"\n[training]\nbatch_size = 2\nclip = 2\nwarmup_steps = 2')
    training = load(path, ["training.warmup_steps=4"], ["layer"], registry=REGISTRY).training
    assert (training.batch_size, training.clip, training.warmup_steps) == (2, 3.0, 4)


def test_extended_files_are_laid_in_order_and_what_they_share_once(write: Write) -> None:
    write(SOUND + "clip = 1", "common.toml")
    write('extends = "common.toml"\n[training]\nclip = 2', "first.toml")
    write('extends = "common"\n[training]\nbatch_size = 2', "second.toml")
    training = load(write('extends = ["first.toml", "second.toml"]'), registry=REGISTRY).training
    assert (training.clip, training.batch_size) == (2.0, 2)


def test_files_that_extend_each_other_are_a_mistake(write: Write) -> None:
    write('extends = "x.toml"', "y.toml")
    assert "extends itself" in problems(write('extends = "y.toml"'))[0]


def test_a_single_kind_is_replaced_unless_the_name_is_the_same(write: Write) -> None:
    write(SOUND, "base.toml")
    other = load(write('extends = "base.toml"\n[strategy.ddpm]'), registry=REGISTRY)
    same = load(write('extends = "base.toml"\n[strategy.rflow]\nwhere = "w"'), registry=REGISTRY)
    assert other.strategy == Other()
    assert same.strategy == Plain(a=2, where=Path("w"))


def test_an_override_picks_a_plugin_and_keeps_the_settings_of_the_same(write: Write) -> None:
    path = write(SOUND)
    assert load(
        path, ["strategy=ddpm", "strategy.ddpm.b=[3]"], registry=REGISTRY
    ).strategy == Other(b=(3,))
    assert load(path, ["strategy=rflow"], registry=REGISTRY).strategy == Plain(a=2)


def test_several_merge_and_false_takes_one_away(write: Write) -> None:
    path = write(SOUND + "[callbacks.progress]\nb = [5]")
    assert set(load(path, registry=REGISTRY).callbacks) == {"ema", "progress"}
    assert set(load(path, ["callbacks.ema=false"], registry=REGISTRY).callbacks) == {"progress"}


def test_taking_away_what_nobody_knows_is_a_mistake(write: Write) -> None:
    assert problems(write(SOUND), "callbacks.emma=false") == [
        "command line: callbacks.emma: no such plugin, expected one of ema, progress, raising, telling. "
        "Did you mean ema?"
    ]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("a/b", "a/b"),
        ("T1c_*.nii.gz", "T1c_*.nii.gz"),
        ('"3"', "3"),
        ("", ""),
        ("#1", "#1"),
        ("x = 1", "x = 1"),
    ],
)
def test_the_right_side_is_toml_or_a_string_as_it_stands(
    write: Write, override: str, value: str
) -> None:
    assert load(write(SOUND), [f"data.files.bravo={override}"], registry=REGISTRY).data.files == {
        "bravo": value
    }


def test_steps_and_epochs_take_each_others_place_but_not_in_one_file(write: Write) -> None:
    path = write(SOUND)
    assert load(path, ["training.steps=7"], registry=REGISTRY).training.epochs == 0
    assert (
        load(path, ["training.steps=7", "training.epochs=3"], registry=REGISTRY).training.steps == 0
    )
    assert "training.steps: got 0" in problems(path, "training.epochs=0")[0]
    assert "training.epochs = 5" in problems(write(SOUND + "steps = 3"))[0]


def test_every_mistake_is_told_at_once_with_the_file_it_is_in(write: Write) -> None:
    write("[training]\nepochs = true\n[data]\nimage_size = 66", "base.toml")
    text = """
        extends = "base.toml"
        [trainig]
        [mode.seg]
        a = "1"
        [strategy.rflw]
        [space.pixel]
        [network.careful]
        part = 3
        [losses.greedy]
        wieght = 1
        [callbacks.ema]
    """
    assert problems(write(text), "training.clip=-1", "x", "training.accumulate=3") == [
        'command line: got "x", expected KEY=VALUE such as training.epochs=3.',
        "x.toml: trainig: no such key. Did you mean training?",
        "base.toml: training.epochs: got true, expected an integer of at least 0.",
        "command line: training.clip: got -1, expected a number of at least 0.",
        'x.toml: mode.seg.a: got "1", expected an integer greater than 0.',
        "x.toml: strategy.rflw: no such plugin, expected one of rflow, ddpm. Did you mean rflow?",
        "x.toml: network.careful.part: no such key. Did you mean parts?",
        "x.toml: losses.greedy.wieght: no such key. Did you mean weight?",
        "command line: training.accumulate: got 3, expected a divisor of training.batch_size = 16. Change one of them.",
        "base.toml: data.image_size: got 66, no multiple of network.careful.parts = 4. Change it.",
    ]


def test_an_empty_recipe_is_told_all_that_it_lacks(write: Write) -> None:
    told = "\n".join(problems(write("")))
    for kind in ("mode", "strategy", "space", "network", "losses", "training.steps"):
        assert f"x.toml: {kind}: " in told


def test_what_only_follows_from_another_mistake_is_not_told(write: Write) -> None:
    assert len(problems(write(SOUND), "network.careful.parts=x", "data.image_size=66")) == 1


def test_one_of_a_single_kind_is_expected_in_a_file(write: Write) -> None:
    assert (
        "got [strategy.rflow] and [strategy.ddpm], expected only one"
        in problems(write(SOUND + "[strategy.ddpm]"))[0]
    )


def test_a_loss_that_reads_what_the_strategy_does_not_give_is_a_mistake(write: Write) -> None:
    [told] = problems(write(SOUND + "[losses.greedy]"))
    assert told.startswith(
        "x.toml: losses.greedy: reads logvar, but strategy.rflow gives only target, x0."
    )


def test_a_broken_plugin_matters_only_where_it_is_needed(write: Write) -> None:
    assert load(write(SOUND), registry=REGISTRY)
    with pytest.raises(PluginError, match=r"x.toml: losses.broken: .*ImportError: x \(bad 1.0\)"):
        load(write(SOUND + "[losses.broken]"), registry=REGISTRY)


def test_a_plugin_whose_check_fails_is_named(write: Write) -> None:
    with pytest.raises(
        PluginError, match=r"callbacks.raising: its check\(recipe\) failed: TypeError: no"
    ):
        load(write(SOUND + "[callbacks.raising]"), registry=REGISTRY)


def test_a_plugin_whose_check_yields_text_is_named_with_what_is_expected(write: Write) -> None:
    with pytest.raises(
        PluginError,
        match=r"callbacks.telling: its check\(recipe\) yielded .* medgen.Problem\(where, what",
    ):
        load(write(SOUND + "[callbacks.telling]"), registry=REGISTRY)


@pytest.mark.parametrize("folder", ["../{name}", "/a/{name}", "{nme}", "{name", "{}"])
def test_a_run_stays_below_its_root(write: Write, folder: str) -> None:
    assert "run.folder: got" in problems(write(SOUND), f"run.folder='{folder}'")[0]
    assert "run.name: got" in problems(write(SOUND), "run.name=../x")[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a = 1\n  b =\n", "x.toml:2:6: "),
        (b"a = 1\na = 2\n", "x.toml:2:"),
        ("# Z\xfcrich".encode("latin-1"), "x.toml:1: byte 0xfc is not UTF-8"),
        ("a = 1".encode("utf-16"), "x.toml:1: byte 0xff is not UTF-8"),
        (b"a\0 = 1", "x.toml:1:"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "x.toml: nested too deeply"),
        (b".".join([b"a"] * 900) + b" = 1", "x.toml: nested too deeply"),
        (b"a = " + b"9" * 5000, "x.toml: a number has too many digits"),
        (b"training = 0x" + b"f" * 5000, "x.toml: training: got a value too large to show"),
        (b"extends = 3", "x.toml: extends: got 3"),
        (b'extends = "y"', "x.toml: extends: y: no such recipe"),
        (b"training = 3", "x.toml: training: got 3, expected a table."),
        (b"losses = 3\nmode = 3\n[callbacks]\nema = 3", "x.toml: losses: got 3, expected tables"),
        (b"", "x.toml: mode: missing"),
    ],
)
def test_a_damaged_file_is_a_line_with_its_place_never_a_traceback(
    write: Write, content: bytes, told: str
) -> None:
    path = write("")
    path.write_bytes(content)
    assert any(line.startswith(told) for line in problems(path))


def test_a_byte_order_mark_is_fine(write: Write) -> None:
    assert load(write("\ufeff" + SOUND), registry=REGISTRY)


@pytest.mark.usefixtures("no_hang")
def test_a_folder_a_pipe_and_a_missing_file_are_told_and_nothing_waits(
    write: Write, tmp_path: Path
) -> None:
    write(SOUND, "folder/near.toml")
    os.mkfifo("pipe.toml")
    assert "is a folder" in problems("folder")[0]
    assert "is no regular file" in problems("pipe.toml")[0]
    assert "Did you mean near.toml?" in problems("folder/neer.toml")[0]
    assert "no such recipe" in problems("a" * 5000)[0]
    assert "no such recipe" in problems("a\0b")[0]


@pytest.mark.parametrize(
    "text", ["=1", "a..b=1", ".=1", "a=\n", "a\udce9=1", ".".join(["a"] * 900) + "=1"]
)
def test_an_override_that_is_none_is_told(write: Write, text: str) -> None:
    assert "expected KEY=VALUE" in problems(write(SOUND), text)[0]


def test_recipes_that_come_along_are_found_by_name_from_anywhere(write: Write) -> None:
    by_name = load("seg_rflow", layers=["fast_debug"])
    assert by_name == load("recipes/seg_rflow.toml", layers=["fast_debug.toml"])
    assert load(write('extends = "seg_rflow"\n')) == load(recipes_dir() / "seg_rflow.toml")


@pytest.mark.parametrize("layers", [[], ["fast_debug"], ["cluster"], ["cluster", "fast_debug"]])
def test_every_shipped_recipe_loads_alone_and_under_each_layer(layers: list[str]) -> None:
    registry = Registry.load()
    for name, summary in shipped():
        recipe = load(name, layers=layers, registry=registry)
        assert from_toml(to_toml(recipe), registry) == recipe
        assert summary


def test_the_mistakes_of_a_real_recipe_are_told_at_once_without_torch_or_monai(
    write: Write,
) -> None:
    write(
        """
        extends = "base/diffusion.toml"
        [trainig]
        [data]
        image_size = 130
        image_sise = 64
        [mode.dual]
        [strategy.rflw]
        [losses.mse]
        [network.unet]
        channels = [128, 250, 256]
        norm_groups = 32
        [training]
        epochs = true
        learning_rate = "1e-4"
        """
    )
    script = (
        "import sys; from medgen.config.recipe import load; from medgen.errors import MedgenError\n"
        "try: load('x.toml')\n"
        "except MedgenError as error: print(*error.lines, error.exit_code, sep='\\n')\n"
        "print(sorted({'torch', 'monai', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    *told, code, heavy = done.stdout.splitlines()
    assert (code, heavy) == ("2", "[]")
    hints = {
        "trainig: ": "training?",
        "data.image_sise: no such key. ": "image_size?",
        "training.epochs: got true, expected an integer": "",
        'training.learning_rate: got "1e-4", expected a number': "",
        "strategy.rflw: ": "rflow?",
        "data.image_size: got 130": "",
        "network.unet.channels[1]: got 250": "",
    }
    assert len(told) == len(hints)
    for start, hint in hints.items():
        assert any(line.startswith(f"x.toml: {start}") and hint in line for line in told), start


def test_a_mistake_has_the_exit_code_of_who_must_act(write: Write) -> None:
    with pytest.raises(MedgenError) as both:
        load(write(SOUND + "[losses.broken]\n[trainig]"), registry=REGISTRY)
    assert both.value.exit_code == 2
    assert len(both.value.lines) == 2
