"""Run the command line. Commands import torch when they run, so that `--help` answers at once."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import click

from medgen import __version__
from medgen.cli import options
from medgen.cli.audit import audit
from medgen.cli.data import data
from medgen.cli.evaluate import evaluate
from medgen.cli.export import export
from medgen.cli.generate import generate
from medgen.cli.insert import insert
from medgen.cli.plugins import plugins
from medgen.cli.prove import prove
from medgen.cli.recipes import recipe
from medgen.cli.show import show
from medgen.cli.train import train
from medgen.errors import (
    MedgenError,
    Problem,
    RecipeError,
    StorageError,
    exit_code_of,
    of_system,
)
from medgen.system import streams, surroundings


class Commands(options.OpenGroup):
    """All commands, with errors as medgen tells them."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. Raises RuntimeError for a broken pipe, where click would exit silently."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise RuntimeError(f"BrokenPipeError: {error}") from error


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="medgen")
def cli(debug: bool) -> None:
    """Labelled synthetic brain MRI: from scans with lesion masks to image and mask pairs."""


for each in (train, generate, insert, show, evaluate, audit, prove, export, plugins, recipe, data):
    cli.add_command(each)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run medgen and exit; every error is one line on stderr and an exit code."""
    surroundings.prepare()
    given = list(sys.argv[1:] if arguments is None else arguments)
    code = guarded(lambda: _run(given), "--debug" in given)
    if (
        "torch.distributed" in sys.modules
    ):  # else there can be no group, and torch is not imported for the question
        from medgen.ranks import process_group

        process_group.exit_now(code)
    sys.exit(code)


def _run(given: list[str]) -> Any:
    """Run the command. Options of medgen, such as --debug, may also follow the command."""
    try:
        return cli.main(list(given), prog_name="medgen", standalone_mode=False, obj=given)
    except click.NoSuchOption as error:
        own = {name for each in cli.params for name in each.opts}
        if error.option_name not in own or error.option_name not in given:
            raise
        rest = [each for each in given if each != error.option_name]
        return cli.main(
            [error.option_name, *rest], prog_name="medgen", standalone_mode=False, obj=given
        )


def _usage(error: click.ClickException) -> Problem:
    """Return click's error message, four lines, as one."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "medgen"
    where = command.removeprefix("medgen").strip()
    said = error.format_message().rstrip(".")
    return Problem(where, said, f"See `{command} --help`")


def guarded(work: Callable[[], Any], debug: bool) -> int:
    """Run `work` and return its exit code or its error's, even if the log cannot be written."""
    with streams.steady():
        code = _outcome(work, debug)
        cut = None if code else streams.cut_result()
        if cut:
            _fail(StorageError(cut))
        return StorageError.exit_code if cut else code


def _fail(error: MedgenError) -> None:
    from medgen.system import console

    console.fail(error)


def _outcome(work: Callable[[], Any], debug: bool) -> int:
    try:
        result = work()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # click has it since 8.2
            error.show()
        else:
            _fail(RecipeError(_usage(error)))
        return error.exit_code
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        _fail(error if isinstance(error, MedgenError) else _what_happened(error))
        return exit_code_of(error)


def _what_happened(error: BaseException) -> MedgenError:
    """Describe an error that is no MedgenError."""
    code = exit_code_of(error)
    if code == 130:
        return MedgenError(
            Problem("interrupted", "nothing more was written", "Give the same command to go on")
        )
    if isinstance(error, OSError) and (told := of_system(error, "storage")):
        return told
    if code == 7:
        fix = "Use a smaller network, image or batch, or lower data.workers"
        return MedgenError(Problem("out of memory", "the host has too little", fix))
    what = f"{type(error).__name__}: {error}".rstrip(": .")
    return MedgenError(
        Problem(
            "", what, "A bug in medgen or a plugin: give --debug as well, and report what it shows"
        )
    )
