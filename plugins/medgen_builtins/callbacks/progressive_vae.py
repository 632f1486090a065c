"""Progressive growing (Karras et al. 2018) by whole phases: small images first, then larger ones
from those weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from medgen import (
    Callback,
    PhasedSettings,
    Problem,
    Recipe,
    between,
    field,
    ge,
    gt,
    hookimpl,
    settings,
)
from medgen.api.tables import LARGEST_SIZE, image_size, sides
from medgen.config.checks import mistakes
from medgen_builtins.callbacks._plateau import KEY, Rule

medgen_api = 1


@settings
class ProgressiveVae(PhasedSettings):
    """Trains at one image size after the other, each phase a run of its own in `phase_64/` and the
    like.

    A phase ends on a plateau, the last one after `final_epochs`; none takes more than
    `training.steps` or `epochs`. Weights are carried over, optimizers and averages begin anew.
    `data.image_size` and `training.batch_size` are those of each phase. Epochs are counted here
    where they were validated, so all of them with `training.validate_every=1`.
    """

    sizes: tuple[int, ...] = field(
        (64, 128, 256),
        help="px, image size of each phase, rising; of volumes that are no cubes the first side",
        check=between(8, LARGEST_SIZE),
    )
    batch_sizes: tuple[int, ...] = field(
        (32, 16, 8), help="training.batch_size of each phase", check=between(1, 10**6)
    )
    metric: str = field(
        "loss/val", help="metric that falls with progress; a leading minus for psnr and other gains"
    )
    window: int = field(10, help="epochs that the metric is averaged over", check=between(1, 10**6))
    min_improvement: float = field(
        0.5, help="percent below the best mean that count as progress", check=ge(0)
    )
    min_epochs: int = field(20, help="epochs before patience starts", check=ge(1))
    patience: int = field(
        10, help="consecutive epochs without progress that end a phase", check=ge(1)
    )
    final_epochs: int = field(100, help="epochs of the last phase", check=gt(0))

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        wrong = list(self._check_lists())
        yield from wrong
        if "checkpoints" not in recipe.callbacks:
            what = "got no [callbacks.checkpoints], expected one, as phases are joined by what it saves"
            yield Problem(KEY, what, "Add it")
        if not recipe.training.validate_every:
            what = f"got 0, expected 1 or more, as {KEY} looks for a plateau"
            yield Problem("training.validate_every", what, "Raise it")
        if not wrong:
            yield from self._check_phases(recipe)

    def phases(self, recipe: Recipe) -> dict[str, Recipe]:
        """Return the recipe of each phase by its folder's name: its own size and batch, and without
        this callback.
        """
        others = {name: each for name, each in recipe.callbacks.items() if each is not self}
        found = {}
        for index, (size, batch_size) in enumerate(zip(self.sizes, self.batch_sizes, strict=True)):
            training = attrs.evolve(recipe.training, batch_size=batch_size)
            if index:
                training = attrs.evolve(training, init_from=None)
            spacing = (
                recipe.data.spacing * recipe.data.shape[0] / size
            )  # the same square in every phase
            first, *more = sides(recipe.data.image_size)
            whole = image_size((size, *(round(side * size / first) for side in more)))
            data = attrs.evolve(recipe.data, image_size=whole, spacing=spacing)
            found[f"phase_{size}"] = attrs.evolve(
                recipe, data=data, training=training, callbacks=others
            )
        return found

    @property
    def rule(self) -> Rule:
        """When a phase ends."""
        return Rule(self.metric, self.window, self.min_improvement, self.min_epochs, self.patience)

    def build(self) -> Callback:
        from medgen_builtins.callbacks._progressive import Progressive

        return Progressive(self, self.rule, self.final_epochs)

    def _check_lists(self) -> Iterator[Problem]:
        if not self.sizes:
            yield Problem(
                f"{KEY}.sizes", "got [], expected at least one", "Give the image size of each phase"
            )
            return
        if len(self.batch_sizes) != len(self.sizes):
            expected = f"{len(self.sizes)}, one per size of {KEY}.sizes"
            what = f"got {len(self.batch_sizes)} values, expected {expected}"
            yield Problem(f"{KEY}.batch_sizes", what, "Give one per size")
        if list(self.sizes) != sorted(set(self.sizes)):
            yield Problem(
                f"{KEY}.sizes", f"got {list(self.sizes)}, expected rising sizes", "Sort them"
            )

    def _check_phases(self, recipe: Recipe) -> Iterator[Problem]:
        """Find what is wrong with a phase's recipe because of its size or batch size, and not
        anyhow; each key once.
        """
        known = {str(problem.where) for problem in mistakes(recipe)}
        for index, (name, phase) in enumerate(self.phases(recipe).items()):
            own = {
                "data.image_size": f"{KEY}.sizes[{index}]",
                "training.batch_size": f"{KEY}.batch_sizes[{index}]",
            }
            for problem in mistakes(phase):
                if (key := str(problem.where)) not in known:
                    known.add(key)
                    yield problem._replace(
                        where=own.get(key, key), what=f"{problem.what}, in {name} of {KEY}"
                    )


@hookimpl
def medgen_callbacks() -> dict[str, type]:
    return {"progressive_vae": ProgressiveVae}
