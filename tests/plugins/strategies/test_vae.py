"""The strategy that trains an autoencoder, with and without its discriminator.

Covers: medgen_builtins.strategies._discriminator, medgen_builtins.strategies._vae_turns.
"""

from __future__ import annotations

import json
import shutil

import latents
import pytest
import torch
from medgen_builtins.losses.adversarial import Adversarial
from medgen_builtins.losses.kl import Kl
from medgen_builtins.losses.l1 import L1
from medgen_builtins.networks.autoencoder import Autoencoder
from medgen_builtins.strategies._discriminator import Discriminator
from medgen_builtins.strategies.vae import Vae

from medgen import Batch, Mode
from medgen.config.recipe import load
from medgen.errors import RecipeError
from medgen.run import checkpoint
from medgen.training.turn_values import detach

CPU = torch.device("cpu")
SMALL = (
    "network=autoencoder",
    "network.autoencoder.channels=[8,16]",
    "network.autoencoder.num_res_blocks=1",
    "losses.perceptual=false",
    "strategy.vae.discriminator.channels=8",
    "callbacks.tensorboard=false",
    "training.warmup_steps=0",
    "training.epoch_steps=2",
    "training.steps=4",
)


@pytest.fixture
def small(tiny):
    return (*tiny, *SMALL)


def turns(start_step=0, **losses):
    torch.manual_seed(0)
    network = Autoencoder(channels=(8, 8), num_res_blocks=1).build(1, 1)
    options = Vae(discriminator=Discriminator(channels=8, start_step=start_step)).build()
    options.shape = (16, 16)
    losses = losses or {"l1": L1(), "kl": Kl(), "adversarial": Adversarial()}
    built = {name: each.build(CPU) for name, each in losses.items()}
    return network, options.turns(Mode(("bravo",)), None, network, built, CPU)


def batch():
    return Batch(torch.rand(2, 1, 16, 16) * 2 - 1, torch.zeros(2, 0, 16, 16))


def test_without_an_adversarial_loss_there_is_one_turn():
    assert [turn.name for turn in turns(l1=L1())[1]] == ["autoencoder"]
    assert [turn.name for turn in turns()[1]] == ["autoencoder", "discriminator"]


def test_each_turn_has_its_own_weights_and_gives_gradients_to_no_other():
    network, (first, second) = turns()
    assert {id(each) for each in first.parameters()} == {id(each) for each in network.parameters()}
    images, generator = batch(), torch.Generator().manual_seed(0)
    step = first(images, first.draw(generator, images), None)
    step.losses["adversarial"].sum().backward()
    assert all(each.grad is None for each in second.parameters())
    assert any(each.grad.abs().sum() > 0 for each in first.parameters() if each.grad is not None)
    given = [None if each.grad is None else each.grad.clone() for each in first.parameters()]
    second(images, second.draw(generator, images), detach(step)).losses[
        "discriminator"
    ].sum().backward()
    assert all(each.grad is not None for each in second.parameters())
    assert all(
        a is None or torch.equal(a, b.grad) for a, b in zip(given, first.parameters(), strict=True)
    )


def test_what_is_decoded_is_the_mean_and_the_noise_that_was_drawn_and_nothing_else_is_drawn():
    network, (first, _) = turns()
    images, generator = batch(), torch.Generator().manual_seed(0)
    draws, state = first.draw(generator, images), torch.get_rng_state()
    made = first(images, draws, None).prediction
    assert torch.equal(state, torch.get_rng_state())
    mean, logvar = network.encode(images.image)
    assert torch.equal(made.x0, network.decode(mean + (0.5 * logvar).exp() * draws.noise))


@pytest.mark.parametrize(("step", "joined"), [(0, False), (4, False), (5, True), (9, True)])
def test_the_discriminator_joins_at_its_step_and_that_is_a_function_of_the_step(step, joined):
    _, (first, second) = turns(start_step=5)
    first.step = second.step = step
    images, generator = batch(), torch.Generator().manual_seed(0)
    made = first(images, first.draw(generator, images), None)
    judged = second(images, second.draw(generator, images), detach(made))
    assert (made.losses["adversarial"].abs().min() > 0).item() is joined
    assert (judged.losses["discriminator"].abs().min() > 0).item() is joined


@pytest.mark.parametrize(("size", "depth"), [(16, 1), (64, 2), (128, 3), (256, 4)])
def test_the_depth_of_the_discriminator_follows_the_size_of_the_images(size, depth):
    assert Discriminator().depth(size) == depth
    assert Discriminator(layers=3).depth(size) == 3


def noticed(curve):
    """The steps at which a sentence came. curve: pairs of the losses of reconstruction and discriminator."""
    _, (first, _) = turns()
    said = [
        first.warning(n + 1, {"loss/l1": l1, "loss/discriminator": d})
        for n, (l1, d) in enumerate(curve)
    ]
    return [n + 1 for n, each in enumerate(said) if each]


def test_a_discriminator_that_has_won_is_noticed_once():
    assert noticed(
        [(0.1, 0.2), (0.12, 0.01), (0.13, 0.0), (0.15, 0.0), (0.2, 0.0), (0.3, 0.0)]
    ) == [4]


@pytest.mark.parametrize(
    "curve",
    [
        [(0.1, 0.2)] * 9,
        [(0.1 / n, 0.0) for n in range(1, 9)],
        [(0.1 * n, 0.2) for n in range(1, 9)],
    ],
)
def test_a_balanced_one_or_one_beside_which_all_gets_better_is_not(curve):
    assert noticed(curve) == []


MODES = {
    "bravo": (),
    "dual": (),
    "t1_pre": (),
    "t1_gd": (),
    "flair": (),
    "seg": ("losses.l1=false", "losses.adversarial=false", "losses.bce.weight=1", "losses.dice.weight=1",
            "callbacks.checkpoints.metric=loss/val/bce"),
    "images": ("mode.images.images=[t1_pre,t1_gd]", "mode.images.pooled=true"),
}  # fmt: skip


QUICK = ("dual", "seg", "images")
"""Of several channels, of masks, and pooled; those of one channel are trained elsewhere."""


@pytest.mark.parametrize(
    "mode",
    [pytest.param(mode, marks=() if mode in QUICK else pytest.mark.slow) for mode in MODES],
)
def test_every_mode_trains_an_autoencoder_of_its_images_alone(mode, small, medgen, tmp_path):
    named = () if mode == "images" else (f"mode={mode}",)
    given = [each.replace("[t1_pre,t1_gd]", '["t1_pre","t1_gd"]') for each in MODES[mode]]
    result = medgen("train", "vae_bravo", *small, *named, *given, f"run.dir={tmp_path}/r")
    assert result.code == 0, result.err
    channels = 2 if mode == "dual" else 1
    state = checkpoint.load(tmp_path / "r/latest.pt")
    assert state["network"]["net.encoder.blocks.0.conv.weight"].shape[1] == channels
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    measured = next(line for line in reversed(lines) if "loss/val" in line)
    assert {"psnr/image", "ssim", "latent/scale_00", "latent/kl_03", "latent/dead"} <= set(measured)
    assert ("dice" in measured) == (mode == "seg")
    assert not any("latent/square" in name or "t_000" in name for name in measured)
    assert list((tmp_path / "r/previews").glob("reconstructions_*.png"))


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("trained") / "r", "vae_bravo", SMALL)


def test_two_turns_under_accumulation_and_clipping_log_each_loss_once_and_clip_each_by_itself(
    small, medgen, tmp_path
):
    options = (
        "training.accumulate=2",
        "training.clip=0.5",
        "strategy.vae.discriminator.start_step=0",
    )
    found = []
    for number, more in enumerate((options, options[1:])):
        assert medgen("train", "vae_bravo", *small, *more, f"run.dir={tmp_path}/{number}").code == 0
        lines = [
            json.loads(line)
            for line in (tmp_path / str(number) / "metrics.jsonl").read_text().splitlines()
        ]
        found.append([line for line in lines if "loss/train" in line])
    for one, two in zip(*found, strict=True):
        assert one["loss/train"] == pytest.approx(
            one["loss/l1"] + 1e-3 * one["loss/kl"] + 1e-2 * one["loss/adversarial"], rel=1e-5
        )
        assert {"loss/discriminator", "grad_norm/autoencoder", "grad_norm/discriminator"} <= set(
            one
        )
        assert one["loss/discriminator"] == pytest.approx(two["loss/discriminator"], rel=0.05)


@pytest.mark.row("R2")
def test_a_discriminator_that_is_not_in_the_checkpoint_or_does_not_fit_makes_resuming_fail(
    trained, medgen, tmp_path
):
    """Strictly: nothing of it may begin anew."""
    state = checkpoint.load(trained / "latest.pt")
    names = list(state["turns"]["discriminator"])
    assert names
    assert state["turns"]["autoencoder"] == {}
    for change in ("gone", "shape", "all"):
        turn = dict(state["turns"]["discriminator"])
        if change == "gone":
            del turn[names[0]]
        if change == "shape":
            turn[names[0]] = torch.zeros(3)
        kept = (
            {"autoencoder": {}} if change == "all" else {"autoencoder": {}, "discriminator": turn}
        )
        folder = tmp_path / change
        shutil.copytree(trained, folder)
        (folder / "prev.pt").unlink()
        checkpoint.save(
            {**{k: v for k, v in state.items() if k not in ("keys", "format")}, "turns": kept},
            folder / "latest.pt",
        )
        result = medgen("train", "--resume", folder, "training.steps=5")
        assert result.code == 4, (change, result)
        assert len(result.err.strip().splitlines()) == 1
        assert "latest.pt" in result.err


def test_generate_says_that_an_autoencoder_generates_nothing(trained, medgen, tmp_path):
    options = ("--num-images", 1, "--output-dir", tmp_path / "out")
    result = medgen(
        "generate",
        "--seg-model",
        trained / "latest.pt",
        "--image-model",
        trained / "latest.pt",
        *options,
    )
    assert result.code == 4
    assert "holds an autoencoder (strategy.vae), which generates nothing by itself" in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_the_runs_folder_is_that_of_autoencoders(small, medgen, tmp_path):
    assert (
        medgen(
            "train",
            "vae_bravo",
            *small,
            f"run.root={tmp_path}",
            "run.name=a_",
            "callbacks.previews=false",
        ).code
        == 0
    )
    [folder] = (tmp_path / "vae_2d/bravo").iterdir()
    assert folder.name.startswith("a_16_")


WRONG = {
    "space=space_to_depth": "space.space_to_depth: strategy.vae makes latents of images",
    "network=unet": "network.unet: is no autoencoder",
    "strategy.vae.discriminator.layers=6": "strategy.vae.discriminator.layers: got 6, expected fewer",
    "losses.mse.weight=1": "losses.mse: reads target, but strategy.vae gives only x0, mean, logvar, logits",
}


@pytest.mark.parametrize("change", WRONG)
def test_what_does_not_fit_is_a_mistake_of_the_recipe(change):
    with pytest.raises(RecipeError) as caught:
        load("vae_bravo", [change, "losses.perceptual=false"])
    assert WRONG[change] in str(caught.value)


def test_only_a_strategy_that_gives_logits_takes_the_adversarial_loss():
    with pytest.raises(
        RecipeError, match=r"losses.adversarial: reads logits, but strategy.rflow gives only"
    ):
        load("bravo_rflow", ["losses.adversarial.weight=1"])


def test_two_losses_of_a_discriminator_are_one_too_many():
    with pytest.raises(
        RecipeError, match=r"^losses: adversarial and other each train a discriminator"
    ):
        turns(l1=L1(), adversarial=Adversarial(), other=Adversarial())


@pytest.mark.parametrize(("name", "factor"), [("patches", 4), ("fsq", 8)])
def test_an_autoencoder_of_a_third_party_trains_and_is_diffused_in(
    name, factor, small, tiny, medgen, tmp_path, monkeypatch
):
    """From a plugin of one file: its reconstruction gets better, and a latent run shows samples made with it."""
    latents.install(tmp_path, monkeypatch, name)
    given = (
        *small,
        f"network={name}",
        "training.steps=40",
        "training.learning_rate=5e-3",
        "losses.kl=false",
    )
    given = (*(each for each in given if "autoencoder." not in each), "callbacks.previews=false")
    assert medgen("train", "vae_bravo", *given, f"run.dir={tmp_path}/ae").code == 0
    lines = [json.loads(line) for line in (tmp_path / "ae/metrics.jsonl").read_text().splitlines()]
    l1 = [line["loss/l1"] for line in lines if "loss/l1" in line]
    assert sum(l1[-4:]) < 0.8 * sum(l1[:4])
    latent = (
        "space=latent",
        f"space.latent.checkpoint={tmp_path}/ae",
        f"space.latent.factor={factor}",
    )
    sized = (
        "data.image_size=32",
        "network.unet.channels=[8,8]",
        "network.unet.attention=[false,false]",
    )
    common = ("callbacks.tensorboard=false", "training.steps=2", f"run.dir={tmp_path}/run")
    done = medgen("train", "bravo_rflow", *tiny, *sized, *latent, *common)
    assert done.code == 0, done.err
    assert list((tmp_path / "run").rglob("*.png"))
