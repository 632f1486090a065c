"""Extractors and segmenters are plugins, listed and set like any other.

Covers: medgen.api.measures.
"""

from __future__ import annotations

import pytest

from medgen import FeaturesSettings, SegmenterSettings, field, ge, settings
from medgen.api.hooks import hookimpl
from medgen.cli import listing
from medgen.config import plugin_hooks
from medgen.config.entries import Entry
from medgen.config.plugin_hooks import BrokenPluginError
from medgen.config.plugin_loader import _classes
from medgen.config.registry import Registry
from medgen.errors import PluginError, RecipeError
from medgen.evaluation.sources import measure


@settings
class Mean(FeaturesSettings):
    """The mean of an image."""

    power: int = field(1, help="that is taken of it", check=ge(1))


@settings
class Threshold(SegmenterSettings):
    """Bright is lesion."""


class Module:
    medgen_api = 1

    @hookimpl
    def medgen_features(self):
        return {"mean": Mean}

    @hookimpl
    def medgen_segmenters(self):
        return {"threshold": Threshold}


GIVEN = _classes(plugin_hooks.answers(Module()))
REGISTRY = Registry([], [Entry(*each, "here", "1") for each in GIVEN])


def test_hooks_give_classes_of_both_kinds():
    assert REGISTRY.names("features") == ("mean",)
    assert REGISTRY.names("segmenters") == ("threshold",)


def test_key_value_sets_a_plugin_and_a_mistake_is_named():
    assert measure("features", "mean", ["features.mean.power=3", "data.root=x"], REGISTRY) == Mean(
        power=3
    )
    with pytest.raises(RecipeError, match=r"features\.mean\.power: got 0, expected an integer"):
        measure("features", "mean", ["features.mean.power=0"], REGISTRY)
    with pytest.raises(RecipeError, match=r"features\.mean\.powr"):
        measure("features", "mean", ["features.mean.powr=1"], REGISTRY)
    with pytest.raises(PluginError, match=r"features\.median: no such plugin, there are mean\."):
        measure("features", "median", [], REGISTRY)


def test_both_kinds_are_listed_and_shown(capsys):
    listing.table(REGISTRY)
    listing.page(REGISTRY, "mean")
    shown = capsys.readouterr().out
    assert "features" in shown
    assert "segmenters  threshold" in shown
    assert "[features.mean]\npower = 1" in shown


def test_a_class_of_another_kind_is_refused():
    class Wrong:
        medgen_api = 1

        @hookimpl
        def medgen_features(self):
            return {"threshold": Threshold}

    with pytest.raises(
        BrokenPluginError,
        match=r"features\.threshold does not derive from medgen\.FeaturesSettings",
    ):
        list(_classes(plugin_hooks.answers(Wrong())))
