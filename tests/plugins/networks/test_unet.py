"""MONAI's U-Net, and the checks that come before it is built."""

from __future__ import annotations

import copy
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from medgen_builtins.networks.unet import Unet
from medgen_builtins.spaces.pixel import Pixel
from medgen_builtins.spaces.space_to_depth import SpaceToDepth
from torch import Tensor, nn

from medgen.api.tables import DataSettings


def recipe(image_size: int = 16, space: Any = None) -> Any:
    return SimpleNamespace(data=DataSettings(image_size=image_size), space=space or Pixel())


def run(network: nn.Module, size: int = 16, channels: int = 2, axes: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, *(size,) * axes, generator=generator)
    return network(x, torch.tensor([0.0, 1000.0]))


def wake(network: nn.Module) -> None:
    """The last convolutions start at zero; give every weight a value."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)


@pytest.mark.parametrize("axes", [2, 3])
def test_gives_what_it_is_asked_for(axes: int) -> None:
    """In and out channels are the caller's, over two or three axes, and the output starts at zero."""
    network = Unet(channels=(8, 16), num_res_blocks=1).build(3, 2, axes)
    output = run(network, size=8, channels=3, axes=axes)
    assert output.shape == (2, 2, *(8,) * axes)
    assert torch.count_nonzero(output) == 0


def test_depends_on_time() -> None:
    """The output changes with t."""
    network = Unet(channels=(8, 16), num_res_blocks=1).build(1, 1)
    wake(network)
    x = torch.zeros(2, 1, 8, 8)
    early, late = network(x, torch.tensor([10.0, 900.0]))
    assert not torch.allclose(early, late, atol=1e-4)


def test_what_follows_from_the_widths() -> None:
    """Attention at the deepest level, the most groups that divide all widths, and heads that divide the deepest."""
    network: Any = Unet(channels=(24, 48, 80), num_res_blocks=1).build(1, 1)
    assert network.attention_levels == (False, False, True)
    assert network.out[0].num_groups == 8
    assert network.num_head_channels[-1] == 40


POSSIBLE: list[tuple[dict[str, Any], int, Any]] = [
    ({"channels": (8,)}, 9, Pixel()),
    ({"channels": (8, 8, 8)}, 12, Pixel()),
    ({"channels": (6, 10)}, 8, Pixel()),
    ({"channels": (8, 16), "attention": (True, False), "head_channels": 8}, 8, Pixel()),
    ({"channels": (8, 8, 8)}, 16, SpaceToDepth()),
    ({"channels": (8, 12), "norm_groups": 4}, 8, Pixel()),
]


@pytest.mark.parametrize(("options", "size", "space"), POSSIBLE)
def test_what_passes_the_check_runs(options: dict[str, Any], size: int, space: Any) -> None:
    """A recipe without mistakes gives a network that takes its images."""
    settings = Unet(num_res_blocks=1, **options)
    assert list(settings.check(recipe(size, space))) == []
    (inside, _) = space.spatial((size, size))
    assert run(settings.build(2, 1), inside).shape == (2, 1, inside, inside)


IMPOSSIBLE: list[tuple[dict[str, Any], int, Any, str]] = [
    (
        {"channels": (8, 8, 8)},
        14,
        Pixel(),
        "data.image_size: got 14, which is 14 x 14 in the space, expected a multip",
    ),
    (
        {"channels": (8, 8, 8)},
        20,
        SpaceToDepth(),
        "data.image_size: got 20, which is 10 x 10 in the space, expected ",
    ),
    (
        {"channels": (8, 12), "norm_groups": 8},
        8,
        Pixel(),
        "network.unet.channels[1]: got 12, expected a multiple of ",
    ),
    (
        {"channels": (8, 12), "head_channels": 8},
        8,
        Pixel(),
        "network.unet.head_channels: got 8, expected a divisor of ",
    ),
    (
        {"channels": (8, 8), "attention": (True,)},
        8,
        Pixel(),
        "network.unet.attention: got 1 values, expected 2",
    ),
]


@pytest.mark.parametrize(("options", "size", "space", "start"), IMPOSSIBLE)
def test_what_cannot_run_is_reported(
    options: dict[str, Any], size: int, space: Any, start: str
) -> None:
    """What the network would fail on is one line with its key, and the network does fail on it."""
    settings = Unet(num_res_blocks=1, **options)
    [message] = settings.check(recipe(size, space))
    assert str(message).startswith(start)
    with pytest.raises((ValueError, RuntimeError)):
        run(settings.build(2, 1), space.spatial((size, size))[0])


def test_all_mistakes_at_once() -> None:
    """Size, groups, heads and attention are reported together."""
    settings = Unet(channels=(8, 12, 20), norm_groups=8, head_channels=16, attention=(True,))
    keys = [str(message).split(":")[0] for message in settings.check(recipe(10))]
    assert keys == [
        "data.image_size",
        "network.unet.head_channels",
        "network.unet.channels[1]",
        "network.unet.channels[2]",
        "network.unet.head_channels",
        "network.unet.attention",
    ]


def test_no_levels() -> None:
    """Empty channels are a mistake of their own."""
    [message] = Unet(channels=()).check(recipe())
    assert str(message).startswith("network.unet.channels: got [], ")


def test_checks_import_neither_torch_nor_monai() -> None:
    """A recipe is checked at once."""
    code = (
        "import sys; from types import SimpleNamespace as S; from medgen_builtins.networks.unet import Unet; "
        "from medgen_builtins.strategies import ddpm, rflow; from medgen_builtins.losses import mse, min_snr; "
        "from medgen_builtins.spaces import pixel, space_to_depth as s; from medgen.api.tables import DataSettings; "
        "list(Unet().check(S(data=DataSettings(image_size=10), space=s.SpaceToDepth()))); "
        "sys.exit(bool({'torch', 'monai'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_dropout_acts_in_training_only() -> None:
    """Dropout changes outputs in training, none in evaluation, and no name of a weight."""
    plain, dropping = (
        Unet(channels=(8, 16), num_res_blocks=1, dropout=share).build(2, 1) for share in (0.0, 0.5)
    )
    assert list(plain.state_dict()) == list(dropping.state_dict())
    wake(plain)
    wake(dropping)
    assert not torch.allclose(run(plain), run(dropping.train()))
    assert torch.equal(run(plain.eval()), run(dropping.eval()))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_checkpointing_changes_neither_output_nor_gradient_nor_a_name(dropout: float) -> None:
    """With the same random numbers all is the same to the last bit, also in a copy, and so is the next number."""
    results = []
    for checkpointing in (False, True):
        options = {"num_res_blocks": 1, "dropout": dropout, "checkpointing": checkpointing}
        network = copy.deepcopy(Unet(channels=(8, 16), **options).build(2, 1))
        wake(network)
        torch.manual_seed(1)
        output = run(network)
        output.square().mean().backward()
        results.append([output, torch.rand(1), *(weight.grad for weight in network.parameters())])
        results[-1].extend(network.state_dict().values())
        names = list(network.state_dict())
    assert names == list(Unet(channels=(8, 16), num_res_blocks=1).build(2, 1).state_dict())
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_checkpointing_compiles_as_one_graph_with_the_same_gradients() -> None:
    """Here as far as autograd; what makes code of it comes after that."""
    gradients = []
    for compiled in (False, True):
        network = Unet(channels=(8,), num_res_blocks=1, checkpointing=True).build(2, 1)
        wake(network)
        called: Any = (
            torch.compile(network, backend="aot_eager", fullgraph=True) if compiled else network
        )
        run(called).square().mean().backward()
        gradients.append([weight.grad for weight in network.parameters()])
    assert all(torch.allclose(*pair, rtol=1e-4, atol=1e-6) for pair in zip(*gradients, strict=True))


def kept(network: nn.Module) -> int:
    """Bytes that are kept for the way back, but for the weights, each storage once."""
    storages = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {weight.data_ptr() for weight in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = run(network)
    assert output.requires_grad
    return sum(size for place, size in storages.items() if place not in weights)


def test_checkpointing_keeps_less_than_half() -> None:
    """In training; without gradients, or in evaluation, nothing is computed twice."""
    plain, sparing = (
        Unet(channels=(8, 16), checkpointing=each).build(2, 1) for each in (False, True)
    )
    assert kept(sparing.train()) < 0.5 * kept(plain.train())
    assert kept(sparing.eval()) == kept(plain.eval())


def test_learns() -> None:
    """Gradients reach every weight once the zeroed convolutions have left zero."""
    network = Unet(channels=(8, 16), num_res_blocks=1).build(2, 1)
    wake(network)
    run(network).square().mean().backward()
    assert all(
        weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.parameters()
    )
