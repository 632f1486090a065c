"""Small runs of each kind of training, for tests that stop, kill and damage them."""

from __future__ import annotations

from pathlib import Path

SMALL = (
    "network.unet.channels=[8,8]",
    "network.unet.attention=[false,false]",
    "callbacks.previews=false",
    "callbacks.tensorboard=false",
)
AUTOENCODER = (
    "network=autoencoder",
    "network.autoencoder.channels=[8,8]",
    "network.autoencoder.num_res_blocks=1",
    "losses.perceptual=false",
    "strategy.vae.discriminator.start_step=0",
    "strategy.vae.discriminator.channels=8",
    "training.warmup_steps=0",
    "training.accumulate=2",
)
VARIANTS = {
    "bravo_rflow": ("training.accumulate=2", "callbacks.ema.decay=0.9"),
    "bravo_ddpm": (
        "data.patch_size=8",
        "data.lesion_patches=0.5",
        'mode.bravo.numbers=["place", "position"]',
        "training.accumulate=2",
    ),
    "seg_ddpm": (
        "space=wavelet",
        "losses.mse=false",
        "losses.min_snr.gamma=5",
        "data.lesion_only=false",
        "training.optimizer=muon",
        "network.unet.channels=[8,32]",  # narrower layers are AdamW's
    ),
    "dual_rflow": (
        "space=space_to_depth",
        "data.image_size=32",
        "network.unet.dropout=0.2",
        'mode.dual.numbers=["position", "lesion_size", "spacing", "contrast"]',
    ),
    "bravo_rflow_3d": (
        'mode.images.images=["t1_pre", "t1_gd"]',  # a patient is two samples, as epochs are short
        "mode.images.pooled=true",
        "mode=images",
        'mode.images.condition=["seg"]',
        'mode.images.numbers=["spacing"]',
        "space=wavelet",
        "strategy.rflow.prediction=residual",  # what the space measures is in its checkpoints
        "space.wavelet.fit_given=true",
        "data.augment.flip=0.5",
        "data.augment.rotate=10",
        "data.augment.shift=2",
        "training.batch_size=1",
        "network.unet.dropout=0.2",
    ),
    "vae_bravo": AUTOENCODER,
    "vae_bravo_3d": (
        *AUTOENCODER,
        'mode.images.images=["t1_pre", "t1_gd"]',
        'mode.images.condition=["seg"]',  # crops around lesions need it, the autoencoder does not
        "mode.images.pooled=true",
        "mode=images",
        "data.spacing=0",
        "data.patch_size=8",
        "training.batch_size=2",
    ),
    "bravo_rflow_latent_3d": (
        "space.latent.checkpoint={autoencoder}/../volumes.pt",  # of crops of 8 px, so in tiles
        "space.latent.factor=2",
        'mode.images.images=["t1_pre", "t1_gd"]',
        "mode.images.pooled=true",
        "mode=images",
        "data.spacing=0",
        "training.batch_size=1",
    ),
    "joint_rflow": (
        "data.lesion_only=false",
        "data.augment.flip=0.5",
        "data.augment.rotate=10",
        "data.augment.shift=2",
        "training.accumulate=2",
    ),
    "insert_rflow": (
        "data.axis=coronal",
        "training.batch_size=2",
        "training.accumulate=2",
        "callbacks.ema.decay=0.9",
    ),
    "insert_3d": (
        "training.batch_size=1",
        "callbacks.ema.decay=0.9",
        'mode.insert.numbers=["contrast"]',
    ),
    "bravo_rflow_latent": (
        "space.latent.checkpoint={autoencoder}",
        "space.latent.factor=2",
        "data.image_size=32",
        'mode.bravo.numbers=["position"]',
        "training.accumulate=2",
    ),
}
"""What each recipe is given. To try another kind of training, add a line."""


def overrides(name: str, autoencoder: Path) -> tuple[str, ...]:
    """Those of a variant; see `conftest.autoencoder`."""
    return (*SMALL, *(each.format(autoencoder=autoencoder) for each in VARIANTS[name]))
