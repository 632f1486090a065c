"""A misspelt member of a plugin's object is an error, and a member that is left out has its default.

Covers: medgen.api.interfaces.
"""

from __future__ import annotations

import pytest

from medgen.api.contract import Contract
from medgen.api.interfaces import Callback, DiffusionStrategy, Extractor, Space, Strategy, Turn


@pytest.mark.parametrize(
    ("base", "misspelt", "meant"),
    [
        (Space, "prepares", "prepare"),
        (Turn, "validation_metric", "validation_metrics"),
        (Strategy, "reconstuct", "reconstruct"),
        (DiffusionStrategy, "corupt", "corrupt"),
        (DiffusionStrategy, "shapes", "shape"),
        (Extractor, "fitt", "fit"),
        (Callback, "state_dicts", "state_dict"),
    ],
)
def test_a_misspelt_member_is_an_error_with_the_likely_name(
    base: type[Contract], misspelt: str, meant: str
) -> None:
    with pytest.raises(
        TypeError, match=rf"^Mine\.{misspelt} is no member of .*\. Did you mean {meant}\?$"
    ):
        type("Mine", (base,), {misspelt: None})


def test_a_class_may_have_members_of_its_own() -> None:
    class Mine(Space):
        patch = 4
        _prepares = True

    assert Mine.patch == 4


def test_a_class_that_derives_from_ones_own_is_checked_too() -> None:
    class Mine(Callback):
        pass

    with pytest.raises(TypeError, match="Did you mean load_state_dict"):
        type("Next", (Mine,), {"load_state_dic": None})


def test_what_a_space_leaves_out_changes_nothing() -> None:
    class Mine(Space):
        pass

    space, image = Mine(), object()
    assert [
        space.prepare(image),
        space.encode(image, None),
        space.condition(image),
        space.decode(image),
    ] == [image] * 4
    assert (space.key, space.state_dict()) == (None, {})


def test_what_a_turn_leaves_out_shows_nothing_and_warns_of_nothing() -> None:
    class Mine(Turn):
        pass

    turn = Mine()
    assert (turn.rate, turn.validation_metrics(None, None, None, None), turn.warning(3, {})) == (
        1.0,
        [],
        None,
    )
    assert turn.summarise({"loss": 2.0}) == {"loss": 2.0}
