"""Recipes: TOML files, layers and overrides to one `Recipe`, and back. Every mistake is reported at once.

Nothing here imports torch.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import tomli_w

from medgen.api.interfaces import KINDS, SEVERAL, SINGLE
from medgen.api.settings import (
    Check,
    Key,
    as_toml,
    between,
    did_you_mean,
    field,
    ge,
    gt,
    key_path,
    settings,
    structure,
    unknown_key,
    unstructure,
)
from medgen.config.data import DataSettings
from medgen.config.overlay import Layers, find, parse, recipes_dir
from medgen.config.registry import Registry
from medgen.config.slurm import SlurmSettings
from medgen.errors import PluginError, RecipeError

FOLDER_FIELDS = ("mode", "name", "strategy", "size", "timestamp")
PREDICTION = ("target", "x0")
"""What a strategy gives to losses unless its settings class has `gives`."""
_FOLDER = Check(lambda pattern: _is_folder_pattern(pattern), "made of {" + "}, {".join(FOLDER_FIELDS) + "} and text")
_NAME = Check(lambda name: "/" not in name and name.isprintable() and name != "..", "without a slash")


@settings
class TrainingSettings:
    """How long and how a network is trained. Either `steps` or `epochs` is given."""

    steps: int = field(0, help="optimizer steps of the whole run", check=ge(0))
    epochs: int = field(0, help="passes over the data, instead of steps", check=ge(0))
    epoch_steps: int = field(0, help="optimizer steps after which an epoch ends early; 0: never", check=ge(0))
    batch_size: int = field(16, help="samples of an optimizer step, over all ranks", check=gt(0))
    accumulate: int = field(
        1, help="parts that a batch is computed in, to save memory; divides batch_size", check=gt(0)
    )
    learning_rate: float = field(1e-4, help="the highest, after warm-up", check=gt(0))
    warmup_steps: int = field(0, help="steps over which the learning rate rises", check=ge(0))
    schedule: Literal["cosine", "linear", "constant"] = field(
        "cosine", help="how the learning rate falls after warm-up"
    )
    min_lr: float = field(0.0, help="where it ends, as a share of learning_rate", check=between(0, 1))
    weight_decay: float = field(0.01, help="AdamW's", check=ge(0))
    clip: float = field(1.0, help="largest norm of the gradient; 0: not clipped", check=ge(0))
    precision: Literal["auto", "bf16", "fp32"] = field(
        "auto",
        help="of the network; losses and weights are fp32 always. auto: bf16 if the device that a run begins on has "
        "units for it",
    )
    compile: Literal["auto", True, False] = field(
        "auto", help="torch.compile: faster after a minute of compiling. auto: if it works where a run begins"
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = field(
        "auto", help="auto: channels_last for bf16 and widths of 128 and more"
    )
    validate_every: int = field(1, help="epochs between validations; 0: never", check=ge(0))
    val_batches: int = field(0, help="batches that validation reads; 0: the whole validation set", check=ge(0))
    deterministic: bool = field(False, help="only deterministic GPU kernels; slower")
    max_skipped: int = field(10, help="steps in a row that may be not finite and are left out", check=ge(0))
    init_from: Path | None = field(None, help="checkpoint whose weights a new run begins with")
    time_limit: float = field(0.0, help="minutes after which to save and stop; 0: SLURM's limit, if any", check=ge(0))
    devices: int = field(1, help="devices of each node, one process on each", check=gt(0))
    may_change = ("steps", "epochs", "accumulate", "max_skipped", "init_from", "time_limit", "devices", "compile")

    def check(self, recipe: Recipe) -> Iterator[str]:
        if not self.steps and not self.epochs:
            yield "training.steps: got 0, and training.epochs is 0 too, expected one greater than 0. Give one."
        if self.steps and self.epochs:
            yield f"training.steps: got {self.steps}, expected none beside training.epochs = {self.epochs}. Remove one."
        if self.batch_size % self.accumulate:
            yield (
                f"training.accumulate: got {self.accumulate}, expected a divisor of training.batch_size = "
                f"{self.batch_size}. Change one of them."
            )


@settings
class RunSettings:
    """Where a run's folder is, and what all its randomness comes from."""

    name: str = field("", help="start of the name of the run's folder", check=_NAME)
    seed: int = field(0, help="all randomness is a function of it", check=ge(0))
    root: Path = field(Path("runs"), help="folder of all runs")
    dir: Path | None = field(None, help="the run's own folder, instead of one below root")
    folder: str = field(
        "diffusion_2d/{mode}/{name}{strategy}_{size}_{timestamp}", help="the run's folder below root", check=_FOLDER
    )
    may_change = ("name", "root", "dir", "folder")


@settings
class DistributedSettings:
    """Processes that train together."""

    timeout: float = field(600.0, help="seconds that one may be silent before all are ended", check=gt(0))
    may_change = ("timeout",)


CORE: dict[str, type] = {
    "data": DataSettings,
    "training": TrainingSettings,
    "run": RunSettings,
    "distributed": DistributedSettings,
    "slurm": SlurmSettings,
}
"""The tables that are no plugin's."""


@attrs.frozen(kw_only=True)
class Recipe:
    """An experiment: settings objects, all defaults filled in. `names` has the plugin's name for each single kind."""

    data: DataSettings
    training: TrainingSettings
    run: RunSettings
    distributed: DistributedSettings
    slurm: SlurmSettings
    mode: Any
    strategy: Any
    space: Any
    network: Any
    losses: dict[str, Any]
    callbacks: dict[str, Any]
    names: dict[str, str]

    @property
    def loss_weights(self) -> dict[str, float]:
        """What each loss is multiplied by."""
        return {name: loss.weight for name, loss in self.losses.items()}


def load(
    path: str | Path, overrides: Sequence[str] = (), layers: Sequence[str | Path] = (), registry: Registry | None = None
) -> Recipe:
    """The recipe in a file, or of one that comes along; later wins: what it extends, itself, layers, overrides.

    overrides: `KEY=VALUE`, such as `training.epochs=3`. layers: further recipes, as after `--with`.
    Raises RecipeError with every mistake, or PluginError if all that is wrong is plugins.
    """
    main, laid = find(path), Layers()
    laid.lay_file(main)
    for each in layers:
        laid.lay_file(find(each, [Path(), recipes_dir() / "with"], "--with: "))
    wrong = [problem for each in overrides for problem in laid.lay_override(each)]
    return _Resolver(laid, str(main), registry or Registry.load(), wrong).recipe()


def from_toml(text: str, registry: Registry | None = None, source: str = "recipe") -> Recipe:
    """The recipe in a text, such as a checkpoint's. source: what messages call the text."""
    laid = Layers()
    laid.lay(parse(text, source), source)
    return _Resolver(laid, source, registry or Registry.load()).recipe()


def to_toml(recipe: Recipe, only: str | None = None) -> str:
    """TOML that loads to an equal recipe. only: one table of it, such as `training`."""
    table = _plain(recipe)
    if only is not None and only not in table:
        raise RecipeError(
            f"--only: got {as_toml(only)}, expected one of {', '.join(table)}.{did_you_mean(only, table)}"
        )
    return tomli_w.dumps(table if only is None else {only: table[only]})


def public_toml(recipe: Recipe) -> str:
    """The same with all paths emptied and without [slurm], for what leaves the machine; it still loads."""
    table = _plain(recipe, paths=False)
    del table["slurm"]  # names users and folders, and changes no result
    return tomli_w.dumps(table)


def shipped() -> list[tuple[str, str]]:
    """Names of the recipes that come along, each with the comment that it starts with."""
    files = sorted(recipes_dir().glob("*.toml"))
    return [(path.stem, path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")) for path in files]


class _Resolver:
    """Makes settings objects of tables and collects what is wrong, by who has to act on it."""

    def __init__(self, layers: Layers, source: str, registry: Registry, problems: Iterable[str] = ()):
        self.layers, self.source, self.registry = layers, source, registry
        self.problems, self.broken = list(problems), list[str]()
        self._keys: list[str] = []

    def recipe(self) -> Recipe:
        """The recipe. Raises RecipeError, or PluginError if all that is wrong is plugins."""
        tables = self.layers.tables
        known = (*CORE, *KINDS)
        for name in (name for name in tables if name not in known):
            self._report((name,), unknown_key(name, known))
        for kind, name in self.layers.removed:
            self._require_known(kind, name)
        core: dict[str, Any] = {name: self._structure(cls, tables.get(name, {}), name) for name, cls in CORE.items()}
        single: dict[str, tuple[str, Any]] = {kind: self._single(kind) for kind in SINGLE}
        names = {kind: name for kind, (name, _) in single.items()}
        parts: dict[str, Any] = {kind: made for kind, (_, made) in single.items()}
        parts |= {kind: self._several(kind) for kind in SEVERAL}
        recipe = Recipe(**core, **parts, names=names)
        self._check(recipe)
        if self.problems:
            raise RecipeError(self.problems + self.broken)
        if self.broken:
            raise PluginError(self.broken)
        return recipe

    def _single(self, kind: str) -> tuple[str, Any]:
        table = self.layers.tables.get(kind, {})
        tables = ", ".join(f"[{kind}.{name}]" for name in self.registry.names(kind))
        if not isinstance(table, dict):
            self._report((kind,), f"got {as_toml(table)}, expected one of the tables {tables}.")
        elif len(table) > 1:
            given = " and ".join(f"[{kind}.{name}]" for name in table)
            self._report((kind,), f"got {given}, expected only one. Remove the others.")
        elif not table:
            self._report((kind,), f"missing, expected one of the tables {tables}. Add one.")
        else:
            [(name, values)] = table.items()
            return name, self._plugin(kind, name, values)
        return "", None

    def _several(self, kind: str) -> dict[str, Any]:
        table = self.layers.tables.get(kind, {})
        if not isinstance(table, dict):
            self._report((kind,), f"got {as_toml(table)}, expected tables such as [{kind}.NAME].")
        elif not table and kind == "losses":
            tables = ", ".join(f"[{kind}.{name}]" for name in self.registry.names(kind))
            self._report((kind,), f"missing, expected at least one of the tables {tables}. Add one.")
        else:
            made = {name: self._plugin(kind, name, values) for name, values in table.items()}
            return {name: each for name, each in made.items() if each is not None}
        return {}

    def _plugin(self, kind: str, name: str, table: Any) -> Any:
        try:
            entry = self.registry.find(kind, name)
        except PluginError as error:
            self.broken += [f"{self._origin((kind, name))}: {problem}" for problem in error.problems]
            return None
        if entry:
            return self._structure(entry.settings_class, table, f"{kind}.{name}")
        self._require_known(kind, name)
        return None

    def _require_known(self, kind: str, name: str) -> None:
        names = self.registry.names(kind)
        if name not in (*names, *(plugin.name for plugin in self.registry.plugins if plugin.error)):
            message = f"no such plugin, expected one of {', '.join(names)}.{did_you_mean(name, names)}"
            self._report((kind, name), message)

    def _structure(self, cls: type, table: Any, where: str) -> Any:
        """The settings object; where a key is wrong it has that key's default, so that checks can go on."""
        made, problems = structure(table, cls, where)
        for problem in problems:
            self._report(problem.path, problem.message)
        if made is not None or not isinstance(table, dict):
            return made
        depth = where.count(".") + 1
        wrong = {problem.path[depth] for problem in problems if len(problem.path) > depth}
        return structure({key: value for key, value in table.items() if key not in wrong}, cls)[0]

    def _check(self, recipe: Recipe) -> None:
        parts = {name: getattr(recipe, name) for name in CORE}
        parts |= {f"{kind}.{name}": getattr(recipe, kind) for kind, name in recipe.names.items()}
        parts |= {f"{kind}.{name}": each for kind in SEVERAL for name, each in getattr(recipe, kind).items()}
        messages = [message for where, part in parts.items() for message in self._ask(where, part, recipe)]
        for message in [*messages, *_not_slices(parts), *_not_given(recipe)]:
            if not any(_mentions(message, key) for key in self._keys):  # else it may only follow from that mistake
                self.problems.append(f"{self._origin(_path(message))}: {message}")

    def _ask(self, where: str, part: Any, recipe: Recipe) -> list[str]:
        try:
            return list(part.check(recipe)) if hasattr(part, "check") else []
        except Exception as error:
            if self.problems or self.broken:  # it may have met with what could not be made
                return []
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(f"{where}: its check(recipe) failed: {reason}. Report it to its authors.") from error

    def _report(self, path: tuple[Key, ...], message: str) -> None:
        self._keys.append(key_path(path))
        self.problems.append(f"{self._origin(path)}: {key_path(path)}: {message}")

    def _origin(self, path: tuple[Key, ...]) -> str:
        return self.layers.origin(path) or self.source


def _not_slices(parts: Mapping[str, Any]) -> Iterator[str]:
    """Plugins that may work on volumes, but are to be trained on what the data have."""
    for where, part in parts.items():
        axes = getattr(part, "spatial_dims", 2)
        if axes != 2:
            yield f"{where}.spatial_dims: got {axes}, expected 2, as the data are slices. Leave it out."


def _not_given(recipe: Recipe) -> Iterator[str]:
    """Losses that read what the strategy's prediction does not have."""
    if recipe.strategy is None:
        return
    gives = getattr(recipe.strategy, "gives", PREDICTION)
    for name, loss in recipe.losses.items():
        lacking = [each for each in getattr(loss, "needs", ()) if each not in gives]
        if lacking:
            yield (
                f"losses.{name}: reads {', '.join(lacking)}, but strategy.{recipe.names['strategy']} gives only "
                f"{', '.join(gives)}. Choose another loss or strategy."
            )


def _path(message: str) -> tuple[Key, ...]:
    """The key path that a message starts with, up to a position in a list."""
    return tuple(re.split(r":|\[", message, maxsplit=1)[0].split("."))


def _mentions(message: str, key: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", message) is not None


def _plain(recipe: Recipe, paths: bool = True) -> dict[str, Any]:
    single = {kind: {name: unstructure(getattr(recipe, kind), paths)} for kind, name in recipe.names.items()}
    return single | {name: unstructure(getattr(recipe, name), paths) for name in (*SEVERAL, *CORE)}


def _is_folder_pattern(pattern: str) -> bool:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
    except ValueError:
        return False
    path = Path(pattern)
    return fields <= set(FOLDER_FIELDS) and not path.is_absolute() and ".." not in path.parts and pattern.isprintable()
