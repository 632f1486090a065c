"""How good samples are, during training, so that `best.pt` may be the best by what it generates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from medgen import Callback, CallbackSettings, Problem, between, field, gt, hookimpl, settings
from medgen.api.messages import as_toml, did_you_mean
from medgen.config.registry import Registry

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe, Run
    from medgen.api.values import Better

medgen_api = 1
KEY = "callbacks.evaluation"


@settings
class Evaluation(CallbackSettings):
    """KID of a small sample of the same noise each time, and whether a segmenter finds the lesions
    where the masks say; of volumes by the slices of three planes, and in 3D.

    Samples are compared with the held-out slices, on features that are fitted on the slices to
    train on; their masks are those of held-out slices. Both figures are in `metrics.jsonl` and
    TensorBoard, and `callbacks.checkpoints.metric` may be `kid` (low is better) or `obedience`
    (high is better).
    """

    every: int = field(5, help="validations between evaluations", check=gt(0))
    count: int = field(64, help="number of samples", check=between(8, 4096))
    steps: int = field(0, help="sampling steps; 0: the strategy's own", check=between(0, 10**6))
    features: tuple[str, ...] = field(
        ("atlas",), help="extractors that KID is measured on; the first gives kid, others kid/NAME"
    )
    obedience: bool = field(
        True,
        help="whether to teach a segmenter, once, and let it look for the lesions; only where there are masks",
    )
    may_change = ("every",)

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        if recipe.strategy is None or recipe.mode is None:
            return
        if recipe.strategy.unconditional:
            what = f"strategy.{recipe.names['strategy']} generates no samples to measure"
            yield Problem(KEY, what, f"Set {KEY}=false")
        elif not self._scans(recipe):
            what = f"mode.{recipe.names['mode']} generates masks alone, and features are of scans"
            yield Problem(KEY, what, f"Set {KEY}=false")
        elif recipe.data.crop != "none":
            crop = f"data.crop = {as_toml(recipe.data.crop)}"
            what = f"samples are crops ({crop}), and features are of whole heads"
            yield Problem(KEY, what, f"Set {KEY}=false")
        if not recipe.training.validate_every:
            what = f"got 0, expected 1 or more, as {KEY} is part of validation"
            yield Problem("training.validate_every", what, "Raise it")
        yield from self._check_features()

    def metrics(self, recipe: Recipe) -> dict[str, Better]:
        from medgen.data.scans.layouts import mask_names
        from medgen.training.lesion_masks import has_masks

        found: dict[str, Better] = {self.figure(name): "low" for name in self.features}
        if (
            self.obedience
            and recipe.mode is not None
            and has_masks(recipe.mode.build(), mask_names(recipe.data))
        ):
            found["obedience"] = "high"
        return found

    def figure(self, name: str) -> str:
        """Return what the KID on an extractor is called."""
        return "kid" if name == self.features[0] else f"kid/{name}"

    def build(self, run: Run) -> Callback:
        from medgen_builtins.callbacks._evaluating import Evaluating, Wanted

        features = {self.figure(name): name for name in self.features}
        obeys = "obedience" in self.metrics(run.recipe)
        return Evaluating(Wanted(self.every, self.count, self.steps, features, obeys), run)

    def _scans(self, recipe: Recipe) -> list[str]:
        from medgen.data.scans.layouts import mask_names

        masks = mask_names(recipe.data)
        return [name for name in recipe.mode.build().images if name not in masks]

    def _check_features(self) -> Iterator[Problem]:
        if not self.features:
            yield Problem(
                f"{KEY}.features",
                "got [], expected at least one",
                "Name an extractor, such as atlas",
            )
        known = Registry.load().names("features") if self.features else ()
        for number, name in enumerate(self.features):
            if name not in known:
                likely = did_you_mean(name, known) or f"Choose one of {', '.join(known)}"
                what = f"got {as_toml(name)}, which no plugin gives"
                yield Problem(f"{KEY}.features[{number}]", what, likely)


@hookimpl
def medgen_callbacks() -> dict[str, type]:
    return {"evaluation": Evaluation}
