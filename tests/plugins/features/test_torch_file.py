"""Any network in a file gives features: TorchScript or torch.export; what is none is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from medgen_builtins.features.torch_file import TorchFile

from medgen.errors import RecipeError

CPU = torch.device("cpu")


class Net(torch.nn.Module):
    def __init__(self, channels=1):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, 5, 3)

    def forward(self, x):
        return self.conv(x)


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(-1, 1, (6, 1, 16, 16)).astype(np.float32)


def test_torchscript_is_averaged_over_space(tmp_path, images):
    network = Net().eval()
    torch.jit.script(network).save(tmp_path / "net.pt")
    found = TorchFile(path=tmp_path / "net.pt").build(CPU)(images)
    wanted = network(torch.from_numpy(images)).mean((2, 3)).detach().numpy()
    assert found == pytest.approx(wanted, abs=1e-6)


def test_torch_export_is_read_too(tmp_path, images):
    batch = {0: torch.export.Dim("batch", min=2, max=1024)}
    exported = torch.export.export(
        Net().eval(), (torch.zeros(4, 1, 16, 16),), dynamic_shapes=(batch,)
    )
    torch.export.save(exported, tmp_path / "net.pt2")
    assert TorchFile(path=tmp_path / "net.pt2").build(CPU)(images).shape == (6, 5)


def test_each_channel_is_shown_as_grey_to_a_network_of_three(tmp_path, images):
    torch.jit.script(Net(3).eval()).save(tmp_path / "net.pt")
    two = np.concatenate([images, images], axis=1)
    found = TorchFile(path=tmp_path / "net.pt", channels=3, side=20, range="0..1").build(CPU)(two)
    assert found.shape == (6, 10)
    assert found[:, :5] == pytest.approx(found[:, 5:])


def test_the_hash_is_of_the_file(tmp_path):
    for name in ("one.pt", "two.pt"):
        torch.jit.script(Net().eval()).save(tmp_path / name)
    one, two = (TorchFile(path=tmp_path / name).build(CPU).hash for name in ("one.pt", "two.pt"))
    assert one != two


@pytest.mark.parametrize("harm", ["missing", "torn", "misfit"])
def test_what_gives_no_features_is_refused_in_one_line(tmp_path, images, harm):
    path = tmp_path / "net.pt"
    if harm == "torn":
        path.write_bytes(b"no network")
    if harm == "misfit":
        torch.jit.script(Net(4).eval()).save(path)
    with pytest.raises(RecipeError, match=r"features\.torch_file\.path: .*net\.pt ") as raised:
        TorchFile(path=path).build(CPU)(images)
    assert len(raised.value.lines) == 1
    assert "\n" not in raised.value.lines[0]
