"""The training loops of MONAI's and diffusers' examples, of the network that medgen trains, and sampling as DDPM does.

Peers get one batch that stays in memory, where medgen's step reads its own. `default` is each one's own: fp32 on a CPU,
and for MONAI attention without a fused kernel. `bf16` is medgen's precision, with a fused kernel for both peers.
`python tests/benchmarks/bench.py --only peers,sampling`
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional

STEPS = 1000
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

Work = Callable[[], object]


def monai_network(options: argparse.Namespace, fused: bool) -> nn.Module:
    """As medgen's `unet`: two blocks a level, attention at the deepest. For widths that are powers of 2 or large."""
    widths = _widths(options)
    return DiffusionModelUNet(
        spatial_dims=2,
        in_channels=2,
        out_channels=1,
        channels=widths,
        attention_levels=[level == len(widths) - 1 for level in range(len(widths))],
        num_res_blocks=2,
        num_head_channels=[min(64, width) for width in widths],
        norm_num_groups=min(32, *widths),
        use_flash_attention=fused,
    )


def monai_step(
    options: argparse.Namespace, device: torch.device, precision: str, fused: bool = False
) -> tuple[Work, nn.Module]:
    """MONAI's DDPM tutorial: inferer, mean squared error of the noise, Adam; a scaler where it is fp16."""
    network = monai_network(options, fused).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=2.5e-5)
    inferer = DiffusionInferer(DDPMScheduler(num_train_timesteps=STEPS))
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    images, condition = _batch(options, device)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with _autocast(device, precision):
            noise = torch.randn_like(images)
            t = torch.randint(0, STEPS, (len(images),), device=device).long()
            predicted = inferer(images, network, noise, t, condition=condition, mode="concat")
            loss = functional.mse_loss(predicted.float(), noise.float())
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()

    return step, network


def diffusers_step(
    options: argparse.Namespace, device: torch.device, precision: str
) -> tuple[Work, nn.Module]:
    """diffusers' example of unconditional generation: accelerate, AdamW with clipping, cosine schedule, EMAModel.

    An earlier step that this gave no longer works: accelerate has one precision at a time.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from diffusers import DDPMScheduler as Scheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        mixed_precision="no" if precision == "fp32" else precision, cpu=device.type == "cpu"
    )
    network = diffusers_network(options).to(device).train()
    ema = EMAModel(
        network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75
    )
    ema.to(device)
    adam = torch.optim.AdamW(
        network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
    )
    cosine = get_scheduler(
        "cosine", optimizer=adam, num_warmup_steps=500, num_training_steps=100_000
    )
    scheduler = Scheduler(num_train_timesteps=STEPS)
    model, optimizer, schedule = accelerator.prepare(network, adam, cosine)
    images, condition = _batch(options, device)

    def step() -> float:
        noise = torch.randn_like(images)
        t = torch.randint(0, STEPS, (len(images),), device=device).long()
        noisy = scheduler.add_noise(images, noise, t)
        with accelerator.accumulate(model):
            predicted = model(torch.cat([noisy, condition], 1), t).sample
            loss = functional.mse_loss(predicted.float(), noise.float())
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        ema.step(model.parameters())
        return loss.detach().item()

    return step, network


def has_diffusers() -> bool:
    """Whether the extra `bench` is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("diffusers", "accelerate"))


def diffusers_network(options: argparse.Namespace) -> nn.Module:
    """The same widths, blocks, norms and heads."""
    from diffusers import UNet2DModel

    widths = _widths(options)
    plain = len(widths) - 1
    return UNet2DModel(  # type: ignore[no-any-return]
        sample_size=options.size,
        in_channels=2,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=widths,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
        attention_head_dim=min(64, *widths),
        norm_num_groups=min(32, *widths),
    )


def ancestral(
    network: nn.Module, options: argparse.Namespace, device: torch.device, steps: int
) -> Work:
    """The first of the 1000 steps that DDPM takes from noise to images, by MONAI's scheduler."""
    scheduler = DDPMScheduler(num_train_timesteps=STEPS)
    _, condition = _batch(options, device)

    def make() -> Tensor:
        x = torch.randn_like(condition)
        with torch.no_grad(), _autocast(device, options.precision):
            for t in scheduler.timesteps[:steps]:
                output = network(
                    torch.cat([x, condition], 1), torch.full((len(x),), float(t), device=device)
                )
                x, _ = scheduler.step(output.float(), int(t), x)
        return x

    return make


def parameters(network: nn.Module) -> str:
    """How many, in millions."""
    return f"{sum(each.numel() for each in network.parameters()) / 1e6:.2f} M"


def _widths(options: argparse.Namespace) -> tuple[int, ...]:
    return tuple(int(width) for width in options.channels.split(","))


def _batch(options: argparse.Namespace, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images and what they are conditioned on, `[batch, 1, size, size]`."""
    shape = (options.batch, 1, options.size, options.size)
    return torch.randn(shape, device=device), -torch.ones(shape, device=device)


def _autocast(device: torch.device, precision: str) -> Any:
    return torch.autocast(device.type, DTYPES[precision]) if precision in DTYPES else nullcontext()
