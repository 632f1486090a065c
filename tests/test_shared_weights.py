"""Weights that are handed on: what is in the file, and what is refused.

Covers: medgen_builtins.commands.export_weights.
"""

from __future__ import annotations

import latents
import pytest
import safetensors.torch
import torch
from medgen_builtins.spaces.latent import Latent

from medgen.api.values import Mode
from medgen.errors import CheckpointError
from medgen.run import checkpoint, shared_weights

CPU = torch.device("cpu")
FLAIR = Mode(images=("flair",), condition=("seg",))


@pytest.fixture
def patches(tmp_path_factory, monkeypatch):
    latents.install(tmp_path_factory.mktemp("installed"), monkeypatch)


@pytest.fixture
def source(tmp_path, patches):
    return latents.write_autoencoder(tmp_path / "ae" / "best.pt", "bravo")


def test_the_file_has_the_weights_in_half_precision_and_a_recipe_without_places(
    source, tmp_path, medgen
):
    out = tmp_path / "shared.safetensors"
    assert medgen("export-weights", source, out).code == 0
    state, shared = checkpoint.load(source), shared_weights.read(out)
    expected = state["averaged"] or state["network"]
    assert shared.weights.keys() == expected.keys()
    for name, value in shared.weights.items():
        assert value.dtype == expected[name].dtype
        assert torch.allclose(value, expected[name], rtol=1e-3, atol=1e-6)
    assert str(tmp_path) not in shared.recipe
    assert not shared.any_image


def test_eight_bits_change_a_weight_by_at_most_half_a_step(source, tmp_path, medgen):
    out = tmp_path / "shared.safetensors"
    assert medgen("export-weights", source, out, "--bits", 8).code == 0
    own, shared = (shared_weights.load_any(each).weights for each in (source, out))
    assert shared.keys() == own.keys()
    for name, value in own.items():
        rows = value.flatten(1) if value.ndim > 1 else value[None]
        step = rows.abs().amax(1, keepdim=True) / 127
        assert bool(((shared[name] - value).reshape(rows.shape).abs() <= 0.501 * step).all()), name
    large = [name for name, value in own.items() if value.ndim > 1]
    stored = safetensors.torch.load_file(out)
    assert large
    assert all(stored[name].dtype == torch.int8 for name in large)
    shared_weights.write(source, tmp_path / "again.safetensors", bits=8)
    assert (tmp_path / "again.safetensors").read_bytes() == out.read_bytes()


def test_a_new_run_may_begin_from_it(source, tmp_path):
    """What `training.init_from` reads has the names of the checkpoint's own weights, in fp32."""
    out = tmp_path / "shared.safetensors"
    shared_weights.write(source, out)
    own, shared = (shared_weights.load_any(each).weights for each in (source, out))
    assert shared.keys() == own.keys()
    assert all(torch.equal(shared[name], own[name].half().float()) for name in own)


def test_the_same_run_gives_the_same_bytes(source, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    shared_weights.write(source, first)
    shared_weights.write(source, second)
    assert first.read_bytes() == second.read_bytes()


def test_an_autoencoder_of_one_image_is_refused_for_another_unless_it_is_for_any(source, tmp_path):
    one, any_image = tmp_path / "one.safetensors", tmp_path / "any.safetensors"
    shared_weights.write(source, one)
    shared_weights.write(source, any_image, any_image=True)
    with pytest.raises(CheckpointError, match="an autoencoder of bravo"):
        _ = Latent(checkpoint=one).build(FLAIR, CPU).images
    space = Latent(checkpoint=any_image).build(FLAIR, CPU)
    again = Latent(checkpoint=tmp_path / "gone").build(FLAIR, CPU)
    again.load_state_dict(space.state_dict())  # a run goes on without the file
    assert again.key == space.key


@pytest.mark.parametrize("damage", ["foreign", "cut", "text", "none"])
def test_any_other_file_is_refused_in_one_line(damage, source, tmp_path):
    path = tmp_path / "x.safetensors"
    shared_weights.write(source, path)
    if damage == "foreign":
        safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "text":
        path.write_text("no weights")
    else:
        path.unlink()
    with pytest.raises(CheckpointError) as refused:
        shared_weights.read(path)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_weights_that_fp16_cannot_hold_are_refused(source, tmp_path):
    state = checkpoint.load(source)
    weights = state["averaged"] or state["network"]
    next(iter(weights.values())).fill_(1e6)
    checkpoint.save(state, source)
    with pytest.raises(CheckpointError, match="65504"):
        shared_weights.write(source, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_a_folder_is_no_checkpoint_and_the_line_says_which_file_is(source, tmp_path, medgen):
    done = medgen("export-weights", source.parent, tmp_path / "x.safetensors")
    assert done.code == 4
    assert (
        f"{source.parent}: is a folder, not a checkpoint. Give a checkpoint in it, such as"
        in done.err
    )
