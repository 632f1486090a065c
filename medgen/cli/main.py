"""The command line. A command imports torch only once it runs, so that `medgen --help` answers at once."""

from __future__ import annotations

import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medgen import __version__
from medgen.errors import (
    DataError,
    IncompleteError,
    MedgenError,
    PluginError,
    RecipeError,
    StorageError,
    exit_code_of,
)
from medgen.system import streams, surroundings

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe
    from medgen.api.tables import DataSettings
    from medgen.config.registry import Registry
    from medgen.generation.pairs import Generator, Outcome

FOLDER = click.Path(path_type=Path)
MOST_PAIRS = 10**18
"""Beyond this there are no bytes left to lock; see `manifest`."""
with_option = click.option("--with", "layers", multiple=True, metavar="FILE", help="Lay another recipe over this one.")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")


@lru_cache
def registry() -> Registry:
    """The plugins that are installed, walked once a process."""
    from medgen.config.registry import Registry

    return Registry.load()


class Shard(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """`3/8`: the third of eight parts."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(value), re.ASCII)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            self.fail(f"{value!r} is not I/N with I from 1 to N, such as 3/8.", param, ctx)
        return int(match[1]), int(match[2])


class Commands(click.Group):
    """The core's commands, and those that plugins bring."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *(str(each.name) for each in registry().commands())})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command; where several have that name, one that only says so, as the list of all asks for each."""
        own, added = super().get_command(ctx, name), [each for each in registry().given if each.command.name == name]
        if len(added) + bool(own) < 2:
            return own or next((each.command for each in added), None)
        return _Ambiguous(name, registry().givers(name, core=bool(own)))

    def invoke(self, ctx: click.Context) -> Any:
        """click takes any broken pipe for that of stdout, which cannot fail here, and ends without a word."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise RuntimeError(f"BrokenPipeError: {error}") from error


class _Ambiguous(click.Command):
    """A name that several distributions give a command."""

    def __init__(self, name: str, givers: Sequence[str]):
        from medgen.config.registry import ambiguous

        self.problem = ambiguous(f"command.{name}", givers)
        super().__init__(name, help=f"Given by {' and '.join(givers)}.", add_help_option=False)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raise PluginError, whatever the arguments."""
        raise PluginError(self.problem)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="medgen")
def cli(debug: bool) -> None:
    """Labelled synthetic brain MRI: from a folder of scans with lesion masks to image and mask pairs."""


@cli.command()
@click.argument("recipe", required=False)
@overrides_argument
@with_option
@click.option(
    "--resume", metavar="RUN|auto", help="Continue a run; auto: the newest unfinished one of this recipe, if any."
)
@click.option("--dry-run", is_flag=True, help="Say what would be trained and what it costs, and keep nothing.")
@click.option("--devices", type=click.IntRange(1), metavar="N", help="Use so many devices, one process on each.")
@click.pass_context
def train(
    context: click.Context, recipe: str | None, overrides: tuple[str, ...], layers: tuple[str, ...],
    resume: str | None, dry_run: bool, devices: int | None,
) -> int:  # fmt: skip
    """Train RECIPE, a TOML file or the name of one that comes along."""
    more = [f"training.devices={devices}"] if devices else []
    if resume and resume != "auto":
        given = [recipe, *overrides] if recipe else []
        resolved = _recipe_of(Path(resume), [*given, *more], layers)
    elif recipe:
        from medgen.config.recipe import load

        resolved = load(recipe, [*overrides, *more], layers, registry())
    else:
        raise RecipeError(
            "RECIPE: none given. Name one (`medgen recipe list` shows those that come along), or --resume RUN."
        )
    from medgen.training import session

    if dry_run:
        session.dry_run(resolved)
        return 0
    from medgen.ranks import place, process_group

    if resolved.training.devices > 1 and place.place() is None:
        from medgen.ranks import launcher

        return launcher.supervise(context.find_root().obj, resolved)
    with process_group.member(resolved):
        say_result(_train(resolved, resume))
    return 0


def _recipe_of(folder: Path, overrides: Sequence[str], layers: Sequence[str]) -> Recipe:
    """The recipe with which a run is continued."""
    strange = [each for each in overrides if "=" not in each]
    if strange:
        raise RecipeError(
            f"{strange[0]}: a run is resumed with its own recipe. Give only --resume {folder} and KEY=VALUE."
        )
    from medgen.training import session

    return session.own_recipe(folder, overrides, layers)


def _train(recipe: Recipe, resume: str | None) -> Path:
    from medgen.ranks import collectives
    from medgen.run import folder
    from medgen.training import session

    found = collectives.on_rank_zero(lambda: str(folder.find_unfinished(recipe) or "")) if resume == "auto" else resume
    return session.resume_with(recipe, Path(found)) if found else session.start(recipe)


@cli.command()
@click.option("--image-model", type=FOLDER, metavar="CKPT", help="Checkpoint or run folder of the image model.")
@click.option(
    "--seg-model",
    type=FOLDER,
    metavar="CKPT|DIR",
    help="The same of a mask model, or a folder of masks: files, or patients.",
)
@click.option("--num-images", type=click.IntRange(1, MOST_PAIRS), required=True, help="How many pairs there shall be.")
@click.option(
    "--output-dir", type=FOLDER, required=True, metavar="OUT", help="Folder for OUT/train/syn_00000/... and pairs.png."
)
@click.option("--steps", type=click.IntRange(1), help="Sampling steps; without it, what each model's recipe says.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same pairs.")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Pairs made at a time; part of the result.",
)
@click.option("--shard", type=Shard(), default="1/1", help="Make the Ith of N parts, as one of N jobs.")
@click.option("--devices", type=click.IntRange(1), default=1, metavar="N", help="Share it among so many devices.")
@click.option(
    "--max-area",
    type=click.FloatRange(0, 1),
    default=0.04,
    show_default=True,
    help="Largest valid mask, share of the slice; the default suits metastases.",
)
@click.option(
    "--max-attempts",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Draws of a mask until it is left out.",
)
@click.pass_context
def generate(
    context: click.Context, image_model: Path | None, seg_model: Path | None, num_images: int, output_dir: Path,
    steps: int | None, seed: int, batch_size: int, shard: tuple[int, int], devices: int, max_area: float,
    max_attempts: int,
) -> int:  # fmt: skip
    """Write image and mask pairs; goes on where it was stopped.

    The folder OUT is a dataset that medgen and others can train on.
    """
    from medgen.generation import pairs as work
    from medgen.generation import workers
    from medgen.system.signals import asked_to_stop

    streams.only_log()
    shard, arguments = workers.share(*shard), context.find_root().obj
    indices = work.shard(num_images, batch_size, *shard)
    if not indices:
        _say_nothing(num_images, batch_size, shard)
        return 0
    command, devices = shlex.join(["medgen", *arguments]), workers.processes(devices, indices)
    if devices > 1:
        if code := workers.supervise(arguments, devices, len(indices), output_dir, command):
            return code
    else:
        with workers.joined(), asked_to_stop(command) as stop:
            make = _generator(image_model, seg_model, seed, steps, batch_size, max_area, max_attempts)
            with workers.progress(len(indices)) as advance:
                work.generate(make, indices, output_dir, stop, advance)
    if not workers.notes():
        _conclude(output_dir, indices, max_area, max_attempts)
    return 0


def _say_nothing(num_images: int, batch_size: int, shard: tuple[int, int]) -> None:
    from medgen.system.console import say

    blocks = -(-num_images // batch_size)
    counted = f"{blocks} blocks" if blocks > 1 else "one block"
    what = f"{num_images} pairs are {counted} of --batch-size {batch_size}"
    say(f"shard {shard[0]}/{shard[1]}: nothing of its own: {what}")


def _conclude(output_dir: Path, indices: Sequence[int], max_area: float, max_attempts: int) -> None:
    """Where the result is, and what is not in it."""
    from medgen.generation import pairs as work

    outcome = work.outcome(output_dir, indices)
    picture = output_dir / "pairs.png"
    say_result(picture if picture.exists() else output_dir)
    if outcome.failed:
        what = f"{outcome.failed} of {len(indices)} masks were invalid {max_attempts} times"
        raise IncompleteError(f"{output_dir}: {what} {_why_invalid(outcome, max_area)}.")


def _why_invalid(outcome: Outcome, max_area: float) -> str:
    """What was wrong with the masks, and what helps."""
    listed = "indices " + ", ".join(map(str, outcome.first)) + (", ..." if outcome.failed > 10 else "")
    empty, large, outside = (outcome.rejected[why] for why in ("empty", "too_large", "outside"))
    draws = f"draws: {empty} empty, {large} larger than {max_area:.3g} of the slice"
    draws += f", {outside} in part outside the image model's slices" if outside else ""
    raised = "--max-area or --max-attempts" if large else "--max-attempts"
    where = "" if outcome.empty else ", in a new --output-dir"
    return f"({listed}; {draws}). Train the mask model longer, or raise {raised}{where}"


def _generator(
    image_model: Path | None, seg_model: Path | None, seed: int, steps: int | None, batch_size: int, max_area: float,
    max_attempts: int,
) -> Generator:  # fmt: skip
    from medgen.generation import pairs as work
    from medgen.generation.combination import require_image_model, require_mask_model
    from medgen.generation.folder_masks import FolderMasks
    from medgen.generation.masks import MaskSource, ModelMasks
    from medgen.generation.model import load_model

    image_model, seg_model = _in_run("--image-model", image_model), _in_run("--seg-model", seg_model)
    image = load_model(image_model, registry()) if image_model else None
    masks: MaskSource | None = None
    if seg_model and seg_model.is_dir():
        if image is None:
            raise RecipeError(f"--seg-model: {seg_model} is a folder of masks, which needs images. Give --image-model.")
        masks = FolderMasks(seg_model, image, seed)
    elif seg_model:
        seg = load_model(seg_model, registry())
        require_mask_model(seg)
        if image:
            require_image_model(image, with_masks=True)
        masks = ModelMasks(seg, seed, steps, max_area, max_attempts, image)
    return work.Generator(image, masks, seed, steps, batch_size)


def _in_run(option: str, model: Path | None) -> Path | None:
    """The newest checkpoint, where a run's folder is given. Raises RecipeError for what can be no model."""
    if model is None or (model / "latest.pt").is_file():
        return model and model / "latest.pt"
    if model.is_dir() and option == "--image-model":
        raise RecipeError(
            f"{option}: {model} is a folder without latest.pt. Give a checkpoint, or the folder of a run."
        )
    if model.name.lower().endswith((".nii", ".nii.gz")):
        masks = ", or the folder that the masks lie in" if option == "--seg-model" else ""
        raise RecipeError(f"{option}: {model} is a scan or a mask, not a model. Give a checkpoint{masks}.")
    return model


@cli.group()
def plugins() -> None:
    """What is installed, and by whom."""


@plugins.command("list")
def plugins_list() -> None:
    """Every plugin, its kind and the distribution that brings it; broken ones with the reason."""
    from medgen.cli import listing

    listing.table(registry())


@plugins.command("show")
@click.argument("name")
def plugins_show(name: str) -> None:
    """What a plugin is for, and a block to paste into a recipe."""
    from medgen.cli import listing

    listing.page(registry(), name)


@cli.group()
def recipe() -> None:
    """Experiments, as TOML."""


@recipe.command("list")
def recipe_list() -> None:
    """The recipes that come along."""
    from medgen.config.recipe import shipped

    for name, summary in shipped():
        click.echo(f"{name:<24} {summary}")


@recipe.command("show")
@click.argument("recipe")
@overrides_argument
@with_option
@click.option("--only", metavar="TABLE", help="Print one table only, such as training.")
def recipe_show(recipe: str, overrides: tuple[str, ...], layers: tuple[str, ...], only: str | None) -> None:
    """The resolved recipe with all defaults, as TOML that loads again."""
    from medgen.config.recipe import load, to_toml

    text = to_toml(load(recipe, overrides, layers, registry()), only)
    click.echo(
        "".join(each if each.isprintable() or each == "\n" else f"\\U{ord(each):08x}" for each in text), nl=False
    )


@cli.group()
def data() -> None:
    """Datasets: find what is wrong with one, fill the slice store, make a demo one."""


@data.command("demo")
@click.argument("out", type=FOLDER)
@click.option("--patients", type=click.IntRange(1), default=30, show_default=True, help="How many to make.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same patients.")
def data_demo(out: Path, patients: int, seed: int) -> None:
    """Write made-up patients with brain metastases to OUT: T1 before and after contrast, BRAVO, FLAIR and masks."""
    from medgen.data.demo import make_demo
    from medgen.system.console import progress

    streams.only_log()
    with progress("demo patients", patients) as bar:
        make_demo(out, patients, seed, advance=bar.advance)
    say_result(out)


@data.command("check")
@click.argument("folder", metavar="DIR", type=FOLDER)
@overrides_argument
@click.option("--recipe", metavar="RECIPE", help="Check the channels, masks and settings of a recipe.")
@click.option("--json", "target", metavar="FILE", help="Write the result as JSON too; -: to stdout.")
def data_check(folder: Path, overrides: tuple[str, ...], recipe: str | None, target: str | None) -> int:
    """Find all that is wrong with the scans in DIR, and what is legal but odd.

    KEY=VALUE are settings as in a recipe: data.files.bravo='T1c_*.nii.gz'. The exit code is 3 if there are faults.
    """
    from medgen.data.scans.check import check
    from medgen.data.scans.report import as_json, show
    from medgen.system import console

    settings, channels = _data_settings(folder, overrides, recipe)
    with console.progress("check", unit="files") as bar:
        report = check(settings, channels, bar.update)
    show(report, console.err if target == "-" else console.out)
    if target:
        _write_text(target, as_json(report))
    return DataError.exit_code if report.faults else 0


def _data_settings(
    folder: Path, overrides: Sequence[str], recipe: str | None
) -> tuple[DataSettings, Sequence[str] | None]:
    """Settings for the scans in a folder, and the channels that a recipe wants, if there is one."""
    import attrs

    if recipe:
        from medgen.config.recipe import load

        resolved = load(recipe, overrides, (), registry())
        return attrs.evolve(resolved.data, root=folder), resolved.mode.build().names
    from medgen.api.settings import structure, unknown_key
    from medgen.api.tables import DataSettings
    from medgen.config.overlay import Layers

    laid = Layers()
    wrong = [problem for each in overrides for problem in laid.lay_override(each)]
    wrong += [f"{name}: {unknown_key(name, ['data'])}" for name in laid.tables.keys() - {"data"}]
    settings, problems = structure(laid.tables.get("data", {}), DataSettings, "data")
    if wrong or settings is None:
        raise RecipeError([*wrong, *map(str, problems)])
    return attrs.evolve(settings, root=folder), None


def _write_text(target: str, text: str) -> None:
    """To a file, or to stdout for `-`."""
    try:
        with click.open_file(target, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StorageError(f"{target}: cannot be written ({error.strerror}). Name another file.") from None


@data.command("prepare")
@click.argument("recipe")
@overrides_argument
@with_option
def data_prepare(recipe: str, overrides: tuple[str, ...], layers: tuple[str, ...]) -> None:
    """Fill the slice store of RECIPE's data, so that training starts at once."""
    from medgen.config.recipe import load

    resolved = load(recipe, overrides, layers, registry())
    from medgen.run.assemble import prepare_data

    streams.only_log()
    store = prepare_data(resolved, resolved.mode.build())
    for split in ("train", "val"):
        click.echo(f"{split:<6} {len(store.select(split))} slices of {store.patients(split)} patients")


def say_result(path: Path) -> None:
    """The last line of everything that takes long: where the result is."""
    from medgen.system.console import say

    say(str(path))


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: every mistake and fault is one line on stderr and an exit code."""
    surroundings.prepare()
    given = list(sys.argv[1:] if arguments is None else arguments)
    code = guarded(lambda: cli.main(given, prog_name="medgen", standalone_mode=False, obj=given), "--debug" in given)
    if "medgen.ranks.distributed" in sys.modules:
        from medgen.ranks import process_group

        process_group.exit_now(code)
    sys.exit(code)


def _usage(error: click.ClickException) -> str:
    """One line instead of click's four."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "medgen"
    where = command.removeprefix("medgen").strip()
    said = error.format_message().rstrip(".")
    return f"{where}{': ' if where else ''}{said}{'' if said.endswith('?') else '.'} See `{command} --help`."


def guarded(work: Callable[[], Any], debug: bool) -> int:
    """Run `work` and turn what it raises into an exit code; a log that cannot be written changes nothing."""
    from medgen.system import console

    with streams.steady():
        code = _outcome(work, debug)
        cut = None if code else streams.cut_result()
        if cut:
            console.fail(StorageError(cut))
        return StorageError.exit_code if cut else code


def _outcome(work: Callable[[], Any], debug: bool) -> int:
    from medgen.system import console

    try:
        result = work()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # click has it since 8.2
            error.show()
        else:
            console.fail(RecipeError(_usage(error)))
        return error.exit_code
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        console.fail(error if isinstance(error, MedgenError) else MedgenError(_what_happened(error)))
        return exit_code_of(error)


def _what_happened(error: BaseException) -> str:
    """The line about an error that nobody has turned into one."""
    code = exit_code_of(error)
    if code == 130:
        return "interrupted: nothing more was written. Give the same command to go on."
    if code == 7:
        return "out of memory: the host has too little. Use a smaller network, image or batch, or lower data.workers."
    if code == 8:
        where = getattr(error, "filename", None) or "storage"
        return f"{where}: {getattr(error, 'strerror', error)}. See to that, then give the same command again."
    what = f"{type(error).__name__}: {error}".rstrip(": .")
    return f"{what}. A bug in medgen or a plugin: give --debug as well, and report what it shows."
