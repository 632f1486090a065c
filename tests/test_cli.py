"""The command line: it answers at once, what the manuals say works, and mistakes are one line.

Covers: medgen.cli._data_check, medgen.cli._data_prepare, medgen.cli.data, medgen.cli.main, medgen.cli.options,
medgen.cli.plugins, medgen.cli.recipes.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from faults.forkserver import HANG

from medgen.cli import main
from medgen.cli.main import cli
from medgen.config.recipe import from_toml, load
from medgen.config.registry import Registry

ROOT = Path(__file__).parents[1]
MANUALS = ("README.md", "plugins/README.md", "recipes/README.md")
HEAVY = ("torch", "monai", "numpy", "nibabel")
Run = Callable[..., Any]


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["plugins", "list"],
        ["recipe", "show", "seg_rflow"],
        ["--version"],
    ],
)
def test_what_needs_no_training_imports_neither_torch_nor_monai(words: list[str]) -> None:
    script = (
        "import sys; from medgen.cli.main import main\n"
        f"try: main({words!r})\n"
        f"except SystemExit as ended: print('HEAVY', ended.code, sorted({{*{HEAVY!r}}} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY 0 []", done.stderr


IN_A_GROUP = """
import atexit, sys
import click, torch
from medgen.cli import main
atexit.register(print, "left in order")

@click.command("{name}")
def work():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    if {destroys}:
        torch.distributed.destroy_process_group()
    click.echo("result")
    raise click.exceptions.Exit(9)

main.cli.add_command(work)
main.main(["{name}"])
"""


@pytest.mark.parametrize("destroys", [False, True])
def test_a_process_that_is_still_in_a_group_ends_at_once_with_its_code(destroys: bool) -> None:
    """To leave a group in order, all ranks would have to be there, and one may have died."""
    script = IN_A_GROUP.format(name="grouped", destroys=destroys)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 9, done.stderr
    assert done.stdout.splitlines() == ["result", *["left in order"] * destroys]


# The manuals


def lines(manual: str) -> Iterator[str]:
    """The lines of its `sh` blocks, joined where they go on."""
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / manual).read_text(), re.S):
        yield from block.replace("\\\n", " ").splitlines()


def spans(manual: str) -> Iterator[str]:
    """What stands as code in a sentence and starts with medgen."""
    text = re.sub(r"```.*?```", "", (ROOT / manual).read_text(), flags=re.S)
    yield from re.findall(r"`(medgen [^`]+)`", text)


SHOWN = sorted({
    line for manual in MANUALS for line in (*lines(manual), *spans(manual)) if line.startswith("medgen ")
})  # fmt: skip


def parsed(words: list[str]) -> tuple[click.Command, dict[str, Any]]:
    """The command and its values, as click reads them; nothing is run."""
    command: click.Command = cli
    context = click.Context(cli, info_name="medgen")
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found, f"no command {name}"
        command, context = found, click.Context(found, context, found.name)
    command.parse_args(context, words)
    return command, context.params


def test_the_manuals_show_commands() -> None:
    assert len(SHOWN) > 15
    assert {line.split()[1] for line in SHOWN} >= {"train", "generate", "recipe", "data", "plugins"}


@pytest.mark.parametrize("line", SHOWN)
def test_every_command_that_the_manuals_show_is_one(
    line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, huber: Registry
) -> None:
    monkeypatch.chdir(tmp_path)
    [recipe] = re.findall(r"```toml\n(# my\.toml\n.*?)```", (ROOT / "README.md").read_text(), re.S)
    Path("my.toml").write_text(recipe)
    words = shlex.split(line.replace("...", ""), comments=True)[1:]
    if words == ["--help"]:
        return
    if words[-1] == "NAME" or "RECIPE" in words or len(words) == 1:
        assert cli.get_command(click.Context(cli), words[0])
        return
    command, values = parsed(words)
    if command.name == "show" and "name" in values:
        assert any(entry.name == values["name"] for entry in huber.entries)
    elif values.get("recipe"):
        assert load(values["recipe"], values["overrides"], values.get("layers", ()), huber)


@pytest.fixture(scope="module")
def huber() -> Registry:
    """What is installed, and the package that the manual for authors shows."""
    import importlib.util

    from medgen.config.entries import Entry
    from medgen.config.plugin_loader import _weighted

    place = ROOT / "tests/medgen_huber/medgen_huber.py"
    spec = importlib.util.spec_from_file_location("shown_huber", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["shown_huber"] = module  # attrs reads a class's annotations through it
    spec.loader.exec_module(module)
    installed = Registry.load()
    shown = Entry("losses", "huber", _weighted(module.Huber), "medgen-huber", "1.0")
    return Registry(installed.plugins, [*installed.entries, shown])


def test_the_manual_for_authors_shows_the_package_as_it_is() -> None:
    manual = (ROOT / "plugins/README.md").read_text()
    for name in ("pyproject.toml", "medgen_huber.py"):
        assert (ROOT / "tests/medgen_huber" / name).read_text().strip() in manual


@pytest.mark.parametrize("manual", MANUALS)
def test_every_recipe_that_a_manual_shows_loads(
    manual: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, text in enumerate(
        re.findall(r"```toml\n(.*?)```", (ROOT / manual).read_text(), re.S)
    ):
        if "[build-system]" in text:
            continue
        path = Path(f"{number}.toml")
        path.write_text(text)
        assert from_toml("\n".join(shown(path)))


def shown(path: Path) -> list[str]:
    from medgen.config.recipe import to_toml

    return to_toml(load(path)).splitlines()


@pytest.mark.parametrize(
    "words", [["recipe", "list"], ["plugins", "list"], ["plugins", "show", "rflow"]]
)
def test_the_cheap_ones_run(words: list[str], medgen: Run) -> None:
    ended = medgen(*words)
    assert ended.code == 0
    assert "rflow" in ended.out


@pytest.mark.parametrize("name", ["mse", "unet", "dual", "rflow", "ema"])
def test_the_block_to_paste_is_a_table_that_loads(name: str, medgen: Run, tmp_path: Path) -> None:
    block = medgen("plugins", "show", name).out
    (tmp_path / "x.toml").write_text(f'extends = "dual_rflow"\n{block}')
    assert load(tmp_path / "x.toml")


# Mistakes


def test_a_question_of_click_ends_as_one() -> None:
    assert str(main._usage(click.UsageError("No such x. Did you mean y?"))).endswith(
        "y? See `medgen --help`."
    )


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["trian"], 2, "No such command 'trian'. Did you mean train?"),
        (["data", "chek"], 2, "data: No such command 'chek'. Did you mean check?"),
        (
            ["train", "with/fast_debug"],
            2,
            "is a layer to lay over a recipe. Use it as `medgen train RECIPE --with",
        ),
        (["recipe", "show", "fast_debug"], 2, "fast_debug: is a layer to lay over a recipe."),
        (
            ["train", "bravo_rflow", "fast_debug"],
            2,
            "A layer goes after --with: --with fast_debug.",
        ),
        (
            ["train", "bravo_rflow", "losses=mse"],
            2,
            "Add with losses.mse={}, remove with losses.NAME=false.",
        ),
        (
            ["train", "bravo_rflow", "losses=[mes, l1]"],
            2,
            "Add with losses.mse={} losses.l1={}, remove",
        ),
        (
            ["train", "bravo_rflow", "callbacks.ema=true"],
            2,
            "Use callbacks.ema={} for its defaults, callbacks.ema=fa",
        ),
        (
            ["train", "bravo_rflow", "slurm=4"],
            2,
            "slurm: got 4, expected a table. Set its keys, as slurm.KEY=VALUE.",
        ),
        (["train", "bravo_rfow", "--debg"], 2, "train: No such option '--debg'"),
        (
            ["train", "bravo_rflow", "--devices", "5000"],
            2,
            "medgen: --devices: got 5000, expected an integer from 1 to",
        ),
        (
            ["lr-find", "bravo_rflow", "--steps", "5"],
            2,
            "medgen: --steps: got 5, expected an integer from 10 to",
        ),
        (
            ["lr-find", "bravo_rflow", "--min-lr", "5"],
            2,
            "--max-lr: got 1, expected more than min_lr = 5.",
        ),
        (["train"], 2, "RECIPE: none given"),
        (["train", "bravo_rfow"], 2, "Did you mean bravo_rflow"),
        (["train", "bravo_rflow", "--epochs", "3"], 2, "No such option"),
        (
            ["train", "bravo_rflow", "epochs=3"],
            2,
            "epochs: no such key, expected one of the keys data, training",
        ),
        (["train", "bravo_rflow", "training.epoch=3"], 2, "Did you mean"),
        (["train", "bravo_rflow", "training.epochs=three"], 2, "expected an integer"),
        (["train", "bravo_rflow", "--with", "clster"], 2, "Did you mean cluster"),
        (["train", "bravo_rflow", "data.root=nowhere"], 3, "nowhere: does not exist"),
        (["train", "bravo_rflow", "data.root=nowhere", "--dry-run"], 3, "nowhere: does not exist"),
        (
            ["train", "--resume", "nowhere"],
            4,
            "nowhere: no such folder. Check the path, or use --resume auto.",
        ),
        (["data", "prepare", "bravo_rflow", "data.root=nowhere"], 3, "nowhere: does not exist"),
        (["generate", "--num-images", "1"], 2, "Missing option '--output-dir'"),
        (["generate", "--num-images", "0", "--output-dir", "o"], 2, "0 is not in the range"),
        (["generate", "--num-images", "1", "--output-dir", "o"], 2, "nothing to generate with"),
        (
            ["generate", "--num-images", "1", "--output-dir", "o", "--image-model", "no.pt"],
            4,
            "no such checkpoint",
        ),
        (
            ["generate", "--num-images", "1", "--output-dir", "o", "--image-model", "."],
            2,
            "--image-model: . is a folder without latest.pt",
        ),
        (
            ["generate", "--num-images", "1", "--output-dir", "o", "--seg-model", "."],
            2,
            "Give --image-model",
        ),
        (
            ["generate", "--num-images", "1", "--output-dir", "o", "--steps", str(2**70)],
            2,
            "range 1<=x<=1000000",
        ),
        (
            ["generate", "--num-images", "1", "--output-dir", "o", "--devices", "5000"],
            2,
            "range 1<=x<=1024",
        ),
        (["verify-resume", "bravo_rflow", "--steps", str(10**30)], 2, "range 1<=x<=1000000"),
        (
            ["data", "demo", "o", "--seed", "-1"],
            2,
            "Invalid value for '--seed': -1 is not in the range x>=0",
        ),
        (["plugins", "show", "rflw"], 5, "Did you mean rflow"),
        (["recipe", "show", "seg_rflow", "--only", "trainig"], 2, "Did you mean training"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    words: list[str],
    code: int,
    told: str,
    medgen: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = medgen(*words)
    assert ended.code == code, ended
    [line] = ended.err.splitlines()
    assert line.startswith("medgen: ")
    assert told in line
    assert line.endswith((".", "?"))
    assert all(
        line.startswith("device ") for line in ended.out.splitlines()
    )  # the first line of a training


@pytest.mark.parametrize(
    "added", ["losses.mse={}", "losses.mse={} losses.l1={}", "callbacks.ema={}"]
)
def test_what_a_mistake_says_to_add_loads(added: str) -> None:
    kind, name = added.split()[-1].removesuffix("={}").split(".")
    assert name in getattr(load("bravo_rflow", added.split()), kind)


def test_the_name_of_an_option_is_told_only_of_what_the_option_gave(medgen: Run) -> None:
    ended = medgen(
        "lr-find", "bravo_rflow", "--steps", "20", "callbacks.lr_find.min_lr=-1", "training.clip=-1"
    )
    assert [line.partition(",")[0] for line in ended.err.splitlines()] == [
        "medgen: command line: training.clip: got -1",
        "medgen: --min-lr: got -1",
    ]


def test_an_option_of_medgen_itself_may_stand_after_the_command(medgen: Run) -> None:
    ended = medgen("train", "--debug", "bravo_rfow")
    assert ended.code == 2
    assert ended.err.startswith("Traceback")
    assert ended.err.splitlines()[-1].startswith("medgen: bravo_rfow: no such recipe.")
    assert medgen("data", "check", "--version").out.startswith("medgen, version ")


@pytest.mark.parametrize("words", [[], ["plugins"], ["recipe"], ["data"]])
def test_a_group_alone_shows_what_there_is(words: list[str], medgen: Run) -> None:
    ended = medgen(*words)
    assert "Commands:" in ended.out + ended.err
    assert "Traceback" not in ended.err


def test_a_bug_is_one_line_too_unless_debug_is_given(
    medgen: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("medgen.cli.options.load", broken)
    ended = medgen("recipe", "show", "seg_rflow")
    assert ended.code == 1
    [line] = ended.err.splitlines()
    assert line.startswith("medgen: ZeroDivisionError: division by zero. A bug in medgen")
    ended = medgen("--debug", "recipe", "show", "seg_rflow")
    assert (ended.code, ended.err.splitlines()[0]) == (1, "Traceback (most recent call last):")
    assert ended.err.splitlines()[-1] == line
