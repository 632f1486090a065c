"""The latent space: what it gives back, what it keeps, and that a checkpoint needs nothing else.

Covers: medgen_builtins.spaces._latent_autoencoder, medgen_builtins.spaces._codec.
"""

from __future__ import annotations

from pathlib import Path

import latents
import nibabel as nib
import numpy as np
import pytest
import torch
from faults.forkserver import differences
from medgen_builtins.spaces._latent import LatentSpace
from medgen_builtins.spaces.latent import Latent

from medgen.api.values import Batch, Draws, Mode
from medgen.config.recipe import load
from medgen.errors import CheckpointError, RecipeError
from medgen.run import checkpoint
from medgen.run.assemble import assemble
from medgen.training.trainer import Trainer

BRAVO = Mode(images=("bravo",), condition=("seg",))
DUAL = Mode(images=("t1_pre", "t1_gd"), condition=("seg",))
CPU = torch.device("cpu")
PLACE = (
    "space.latent.scaling=place",
    "strategy.rflow.prediction=residual",
    "strategy.rflow.t_min=0.1",
)


@pytest.fixture(autouse=True)
def patches(tmp_path_factory, monkeypatch):
    latents.install(tmp_path_factory.mktemp("installed"), monkeypatch)


@pytest.fixture
def bravo(tmp_path):
    return latents.write_autoencoder(tmp_path / "ae" / "best.pt", "bravo")


@pytest.fixture
def short(tiny, bravo):
    """Overrides of a short run in latents of `bravo`."""
    return (
        *tiny, "space=latent", f"space.latent.checkpoint={bravo}", "network.unet.attention=[false,false]",
        "training.steps=4", "callbacks.previews=false", "callbacks.tensorboard=false", "training.val_batches=1",
    )  # fmt: skip


def space_of(path: Path, mode: Mode = BRAVO, **options) -> LatentSpace:
    return Latent(checkpoint=path, **options).build(mode, CPU)


def draws(space: LatentSpace, count: int, side: int = 16, scale: float = 0.0) -> Draws:
    noise = torch.randn(count, *space.shape((side, side)))
    return Draws(torch.zeros(count), noise, scale * noise)


@pytest.mark.parametrize(
    ("autoencoder", "mode", "channels"),
    [
        ("bravo", BRAVO, 16),
        ("dual", DUAL, 16),
        ("images", DUAL, 32),
        ("seg", Mode(images=("seg",)), 16),
    ],
)
def test_decoding_inverts_encoding_up_to_what_the_autoencoder_loses(
    autoencoder, mode, channels, tmp_path
):
    """For one channel, for several together, and for several that a pooled autoencoder takes one by one."""
    pooled = ('mode.images.images=["t1_pre","flair","t1_gd"]', "mode.images.pooled=true")
    more = (
        pooled
        if autoencoder == "images"
        else ("network.patches.latent_channels=32",) * (autoencoder == "dual")
    )
    space = space_of(latents.write_autoencoder(tmp_path / "ae.pt", autoencoder, *more), mode)
    image = torch.rand(3, mode.channels, 16, 16) * 2 - 1
    space.calibrate([Batch(space.prepare(image), torch.ones(3, len(mode.condition), 16, 16))])
    z = space.encode(space.prepare(image), draws(space, 3))
    assert z.shape[1:] == space.shape((16, 16))
    assert space.channels == (32 if mode is DUAL else channels)
    torch.testing.assert_close(space.decode(z), image, atol=1e-5, rtol=0)


def test_each_step_draws_a_new_sample_of_unit_variance(bravo):
    space = space_of(bravo)
    batch = Batch(space.prepare(torch.randn(64, 1, 16, 16)), torch.zeros(64, 1, 16, 16))
    space.calibrate([batch])
    z, other = (space.encode(batch.image, draws(space, 64, scale=1.0)) for _ in range(2))
    assert not torch.equal(z, other)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(16), atol=0.02, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(16), atol=0.02, rtol=0)


def test_channels_may_keep_their_proportions(bravo):
    """Together they have variance 1 then, and what a strategy learns of them is how wide each is."""
    images = torch.randn(64, 1, 16, 16) + torch.linspace(-1, 1, 16)  # neighbours are alike
    spaces = {name: space_of(bravo, scaling=name) for name in ("channel", "whole")}
    z = {}
    for name, space in spaces.items():
        stored = space.prepare(images)
        space.calibrate([Batch(stored, torch.zeros(64, 1, 16, 16))])
        z[name] = space.encode(stored, draws(space, 64))
        mean, deviation = space.moments
        torch.testing.assert_close(z[name].mean((0, 2, 3)), mean, atol=1e-4, rtol=0)
        torch.testing.assert_close(z[name].std((0, 2, 3)), deviation, atol=0.01, rtol=0)
        torch.testing.assert_close(space.decode(z[name]), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(z["whole"].square().mean(), torch.tensor(1.0), atol=0.02, rtol=0)
    spread = spaces["whole"].moments[1].view(-1, 1, 1)
    torch.testing.assert_close(z["whole"], z["channel"] * spread)
    assert spread.max() > 1.2 * spread.min()
    again = Latent(checkpoint=Path(), scaling="whole").build(BRAVO, CPU)
    again.load_state_dict(spaces["whole"].state_dict())
    assert torch.equal(again.moments[1], spaces["whole"].moments[1])
    with pytest.raises(KeyError, match="deviation"):
        again.load_state_dict(spaces["channel"].state_dict())
    assert "deviation" not in spaces["channel"].state_dict()  # checkpoints are what they were


def test_what_is_diffused_may_be_the_difference_from_the_average_sample(bravo):
    """Each place has mean 0 then, and a spread of its own, which a strategy learns of; air is nearly flat."""
    noise = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    images = torch.linspace(-1, 1, 16) + torch.linspace(0, 0.5, 16) * noise
    space = space_of(bravo, scaling="place")
    stored = space.prepare(images)
    parts = [Batch(stored[some], torch.zeros(32, 1, 16, 16)) for some in (slice(32), slice(32, 64))]
    space.calibrate(parts)
    z = space.encode(stored, draws(space, 64))
    torch.testing.assert_close(z.mean(0), torch.zeros(space.shape((16, 16))), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.square().mean(), torch.tensor(1.0), atol=0.05, rtol=0)
    torch.testing.assert_close(space.decode(z), images, atol=1e-5, rtol=0)
    mean, deviation = space.moments
    assert not mean.any()
    assert deviation.shape == space.shape((16, 16))
    flat, rough = (deviation[..., at].mean() for at in (0, -1))
    assert flat < 0.5 * rough
    assert deviation.min() >= 0.01
    again = Latent(checkpoint=Path(), scaling="place").build(BRAVO, CPU)
    again.load_state_dict(space.state_dict())
    assert torch.equal(again.decode(z), space.decode(z))
    assert torch.equal(again.moments[1], deviation)
    state = space.state_dict()
    state["autoencoder"]["shift"] = state["autoencoder"]["shift"][:3]
    with pytest.raises(ValueError, match="its shift is of"):
        again.load_state_dict(state)


def test_no_pixel_of_a_mask_is_lost_on_the_latent_grid(bravo):
    """Every lesion of 2 x 2 px gives a condition of its own."""
    masks = -torch.ones(225, 1, 16, 16)
    for number, mask in enumerate(masks):
        mask[0, number // 15 : number // 15 + 2, number % 15 : number % 15 + 2] = 1
    space = space_of(bravo)
    given = space.condition(masks)
    assert given.shape[1:] == (space.condition_channels, 4, 4)
    assert len({each.numpy().tobytes() for each in given}) == 225
    assert space.condition(torch.empty(2, 0, 16, 16)).shape == (2, 0, 4, 4)


def test_masks_may_come_from_an_autoencoder_of_their_own(bravo, tmp_path):
    own = latents.write_autoencoder(
        tmp_path / "masks.pt", "seg", "network.patches.latent_channels=5"
    )
    space = space_of(bravo, masks="encode", mask_checkpoint=own)
    assert (space.channels, space.condition_channels) == (16, 5)
    again = Latent(checkpoint=Path(), masks="encode", mask_checkpoint=Path()).build(BRAVO, CPU)
    masks = torch.randn(4, 1, 16, 16)
    space.calibrate([Batch(space.prepare(masks), masks)])
    again.load_state_dict(space.state_dict())
    assert torch.equal(again.condition(masks), space.condition(masks))
    torch.testing.assert_close(space.condition(masks).std((0, 2, 3), correction=0), torch.ones(5))


@pytest.mark.parametrize(
    ("strategy", "own"),
    [("rflow", ()), ("rflow", PLACE), pytest.param("ddpm", (), marks=pytest.mark.slow)],
)
def test_a_checkpoint_alone_goes_on_and_generates_after_the_autoencoder_is_gone(
    strategy, own, medgen, short, bravo, cohort, tmp_path
):
    """It also ends as if it had never been stopped, and its scale is that of its first step."""
    options = (f"bravo_{strategy}", *short, *own, "callbacks.checkpoints.every_steps=1")
    assert medgen("train", *options, f"run.dir={tmp_path}/whole").code == 0
    with pytest.MonkeyPatch.context() as patch:
        real = Trainer.step

        def stopping(self):
            record = real(self)
            if self.run.step == 2:
                self.run.stop("SIGTERM")
            return record

        patch.setattr(Trainer, "step", stopping)
        assert medgen("train", *options, f"run.dir={tmp_path}/r").code == 75
    scale = checkpoint.load(tmp_path / "r/latest.pt")["space"]["autoencoder"]["scale"]
    bravo.unlink()
    result = medgen("train", "--resume", tmp_path / "r")
    assert result.code == 0, result.err
    assert differences(tmp_path / "whole", tmp_path / "r") == []
    assert torch.equal(
        checkpoint.load(tmp_path / "r/latest.pt")["space"]["autoencoder"]["scale"], scale
    )
    given = (
        "--image-model",
        tmp_path / "r/latest.pt",
        "--seg-model",
        cohort,
        "--output-dir",
        tmp_path / "out",
    )
    result = medgen("generate", *given, "--num-images", 2, "--steps", 2, "--inside", "off")
    assert result.code == 0, result.err
    assert (tmp_path / "out/train/syn_00001/bravo.nii.gz").exists()


def test_masks_are_generated_in_latents_too(medgen, short, tmp_path, monkeypatch):
    """As decoded; so short a training gives empty ones, so that what is decoded is moved to where none is empty."""
    decode, decoded = LatentSpace.decode, []

    def decoding(self, z):
        values = decode(self, z)
        decoded.append(values - values.flatten(1).median(1).values[:, None, None, None])
        return decoded[-1]

    own = latents.write_autoencoder(tmp_path / "masks.pt", "seg")
    trained = medgen(
        "train", "seg_rflow", *short, f"space.latent.checkpoint={own}", f"run.dir={tmp_path}/r"
    )
    assert trained.code == 0, trained.err
    given = (
        "--seg-model",
        tmp_path / "r/latest.pt",
        "--output-dir",
        tmp_path / "out",
        "--max-area",
        1,
    )
    monkeypatch.setattr(LatentSpace, "decode", decoding)
    assert medgen("generate", *given, "--num-images", 2, "--steps", 2).code == 0
    areas = [
        int(nib.load(tmp_path / f"out/train/syn_0000{n}/seg.nii.gz").get_fdata().sum())
        for n in range(2)
    ]
    assert areas == [int((each > 0).sum()) for each in decoded[-1][:2]]
    assert all(50 < each <= 128 for each in areas)  # of 256, and half are above the median


def test_a_resumed_run_keeps_its_scale_though_its_data_give_another(short, tmp_path):
    from medgen.run.assemble import Saved

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    run = assemble(load("bravo_rflow", short), tmp_path / "a")
    state = run.state_dict()
    state["space"]["autoencoder"]["scale"] = torch.full((16,), 3.0)
    again = assemble(load("bravo_rflow", short), tmp_path / "b", saved=Saved(state, tmp_path / "a"))
    assert again.space.images.scale.tolist() == [3.0] * 16
    for each in (run, again):
        each.train.close()


def test_the_optimizer_steps_the_network_alone(short, tmp_path):
    run = assemble(load("bravo_rflow", short), tmp_path)
    turn = run.turns["network"]
    assert {id(each) for each in turn.parameters()} == {
        id(each) for each in run.network.parameters()
    }
    assert not any(each.requires_grad for each in run.space.images.module.parameters())
    run.train.close()


def test_validation_compares_with_the_image_and_not_with_what_comes_back_of_it(
    short, bravo, tmp_path
):
    """An autoencoder that loses much bounds the PSNR, however well its latents are predicted."""
    from medgen.api.values import Prediction, TurnOutput
    from medgen.training.validation import Validation

    poor = latents.write_autoencoder(
        tmp_path / "poor.pt", "bravo", "network.patches.latent_channels=1"
    )
    run = assemble(load("bravo_rflow", [*short, f"space.latent.checkpoint={poor}"]), tmp_path)
    samples = np.arange(4)
    batch, truth = run.to_device(run.val.stored(samples)), run.val.read(samples).image.float()
    turn = run.turns["network"]
    step = turn(batch, turn.draw(torch.Generator().manual_seed(0), batch), None)
    perfect = TurnOutput(step.losses, Prediction(step.noisy.target, step.noisy.x0), step.noisy)
    psnr = dict(Validation(run)._measure(turn, batch, perfect, truth))["psnr/x0"]
    back = run.space.decode(step.noisy.x0).clamp(-1, 1)
    expected = 10 * torch.log10(4 / (back - truth).square().flatten(1).mean(1))
    torch.testing.assert_close(psnr, expected)
    assert psnr.max() < 25
    run.train.close()


def refused(medgen, recipe, *options):
    result = medgen("train", recipe, *options)
    lines = [
        line
        for line in result.err.splitlines()
        if line.startswith("medgen: ") and "warning" not in line
    ]
    assert len(lines) == 1, result.err
    return result.code, lines[0]


@pytest.mark.row("T3")
def test_a_missing_autoencoder_ends_with_4_at_start_in_one_line(medgen, short, tmp_path):
    for where, says in (
        ("none.pt", "no such checkpoint"),
        ("", "has none of final_model.pt, best.pt, latest.pt"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        path = f"space.latent.checkpoint={tmp_path / 'empty' / where}"
        code, line = refused(
            medgen, "bravo_rflow", *short, path, f"run.dir={tmp_path / ('r' + where)}"
        )
        assert (code, says in line) == (4, True), line


def test_what_does_not_fit_is_told_in_one_line(medgen, short, bravo, trained, tmp_path):
    cases = [
        (4, "an autoencoder of bravo, but the recipe's mode has t1_pre, t1_gd", "dual_rflow", ()),
        (4, "network.unet is no autoencoder", "bravo_rflow", (f"space.latent.checkpoint={trained}/bravo/latest.pt",)),
        (2, "space.latent.factor: got 2, expected 4, that of", "bravo_rflow", ("space.latent.factor=2",)),
        (2, "data.image_size: got 18, expected a multiple of space.latent.factor = 4", "bravo_rflow",
         ("data.image_size=18",)),
        (2, "space.latent.mask_checkpoint: missing", "bravo_rflow", ("space.latent.masks=encode",)),
        (2, "halve it 2 times", "bravo_rflow",
         ("network.unet.channels=[8,8,8]", "network.unet.attention=[false,false,false]", "data.image_size=24")),
    ]  # fmt: skip
    for number, (code, says, recipe, options) in enumerate(cases):
        got, line = refused(medgen, recipe, *short, *options, f"run.dir={tmp_path / str(number)}")
        assert (got, says in line) == (code, True), line


def test_a_checkpoint_without_a_path_or_a_state_is_told():
    with pytest.raises(RecipeError, match=r"space\.latent\.checkpoint: got"):
        _ = Latent(checkpoint=Path()).build(BRAVO, CPU).channels


def test_a_state_that_was_changed_is_refused(bravo):
    state = space_of(bravo).state_dict()
    state["autoencoder"]["weights"]["rotation.weight"] = torch.zeros(16, 1, 4, 4)
    with pytest.raises((ValueError, CheckpointError)):
        Latent(checkpoint=Path()).build(BRAVO, CPU).load_state_dict(state)


def test_the_checkpoint_names_no_path(medgen, short, bravo, tmp_path):
    assert medgen("train", "bravo_rflow", *short, f"run.dir={tmp_path}/r").code == 0
    data = (tmp_path / "r/latest.pt").read_bytes()
    assert [
        each
        for each in (str(bravo), bravo.parent.name.join("//"), str(tmp_path))
        if each.encode() in data
    ] == []


def test_a_compiled_step_gives_the_same(short, tmp_path):
    """What is compiled draws nothing and breaks no graph."""
    run = assemble(load("bravo_rflow", short), tmp_path)
    batch = run.to_device(run.train.at(0, 4))
    turn = run.turns["network"]
    given = turn.draw(torch.Generator().manual_seed(0), batch)
    compiled = torch.compile(turn, backend="eager", fullgraph=True)
    assert torch.equal(
        compiled(batch, given, None).losses["mse"], turn(batch, given, None).losses["mse"]
    )
    run.train.close()


def test_what_is_sampled_has_the_texture_that_its_latents_say(medgen, tiny, tmp_path):
    """Of an autoencoder of one channel each image of a pair gets its own, and decoding adds none."""
    small = [each for each in tiny if not each.startswith("network.")]
    given = ("network=dct_autoencoder", "network.dct_autoencoder.channels=8", "training.steps=1")
    given = (*given, "network.dct_autoencoder.blocks=1", "network.dct_autoencoder.texture=true")
    done = medgen(
        "train", "demo_vae", *small, *given, "losses.kl=false", f"run.dir={tmp_path / 'ae'}"
    )
    assert done.code == 0, done
    out = tmp_path / "any.safetensors"
    assert medgen("export-weights", tmp_path / "ae" / "latest.pt", out, "--any-image").code == 0
    space = space_of(out, DUAL)
    rough = torch.zeros(1, 2, 32, 32)
    rough[:, 1] = 0.2 * torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    z = space.encode(space.prepare(rough), draws(space, 1, 32))
    smooth = space.decode(z)
    assert torch.equal(smooth, space.decode(z))
    generator = torch.Generator().manual_seed(1)
    made = space.textured(smooth, z, lambda: torch.randn(z.shape, generator=generator))
    first, second = (float((made - smooth)[:, each].std()) for each in range(2))
    assert first < 0.01 < 0.08 < second < 0.2
