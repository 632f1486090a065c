"""Files that look like checkpoints and want more than to be read. `canary` is what a payload would create."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from medgen.run import tensor_tree

State = dict[str, Any]


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def shell(canary: Path) -> Calls:
    return Calls(os.system, f"touch {canary}")


def saved(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def sound(state: State) -> bytes:
    """With a list of keys that fits, as `checkpoint.save` writes it."""
    state = {key: value for key, value in state.items() if key != "keys"}
    return saved(state | {"keys": sorted(tensor_tree.key_paths(state))})


def records(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def with_pickle(data: bytes, *pickles: bytes) -> bytes:
    """A checkpoint whose `data.pkl` is another, or several."""
    rest = [(name, each) for name, each in records(data).items() if not name.endswith("/data.pkl")]
    return packed(
        [("archive/data.pkl", each) for each in pickles]
        + [("archive/" + n.split("/", 1)[1], d) for n, d in rest]
    )


def system(state: State, canary: Path) -> bytes:
    return saved(state | {"x": shell(canary)})


def numpy_gadget(state: State, canary: Path) -> bytes:
    """Through a helper in numpy that runs a string, for loaders that trust all of numpy."""
    from numpy.testing._private import utils

    return saved(state | {"x": Calls(utils.runstring, f"open({str(canary)!r}, 'w')", {})})


def evaluated(state: State, canary: Path) -> bytes:
    return saved(state | {"x": Calls(eval, f"open({str(canary)!r}, 'w')")})


def in_a_tensor(state: State, canary: Path) -> bytes:
    """As an argument of a function that is allowed."""
    return saved(state | {"x": Calls(torch._utils._rebuild_tensor_v2, shell(canary))})


def nested(state: State, canary: Path) -> bytes:
    return packed([("archive/data.pkl", system(state, canary))])


def two_pickles(state: State, canary: Path) -> bytes:
    good = saved(state)
    bad = next(
        data for name, data in records(system(state, canary)).items() if name.endswith("/data.pkl")
    )
    fine = next(data for name, data in records(good).items() if name.endswith("/data.pkl"))
    return with_pickle(good, fine, bad)


def two_pickles_reversed(state: State, canary: Path) -> bytes:
    good = saved(state)
    bad = next(
        data for name, data in records(system(state, canary)).items() if name.endswith("/data.pkl")
    )
    fine = next(data for name, data in records(good).items() if name.endswith("/data.pkl"))
    return with_pickle(good, bad, fine)


def bare_pickle(state: State, canary: Path) -> bytes:
    return pickle.dumps(shell(canary))


def old_format(state: State, canary: Path) -> bytes:
    file = io.BytesIO()
    torch.save(state | {"x": shell(canary)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def old_format_with_a_zip_behind(state: State, canary: Path) -> bytes:
    """What is verified is not what is loaded."""
    return old_format(state, canary) + saved(state)


def torchscript(state: State, canary: Path) -> bytes:
    script = f"def forward(self):\n  return open({str(canary)!r}, 'w')\n".encode()
    members = [(name, data) for name, data in records(saved(state)).items()]
    return packed(
        [
            *members,
            ("archive/constants.pkl", pickle.dumps(())),
            ("archive/code/__torch__.py", script),
        ]
    )


def deflate_bomb(state: State, canary: Path) -> bytes:
    members = [*records(saved(state)).items(), ("archive/data/zeros", bytes(1 << 29))]
    return packed(members, zipfile.ZIP_DEFLATED)


def stride_zero(state: State, canary: Path) -> bytes:
    """A tensor of 4 TB in four bytes, where a weight should be."""
    name = next(iter(state["network"]))
    huge = torch.zeros(1).expand(10**6, 10**6)
    return sound(state | {part: state[part] | {name: huge} for part in ("network", "averaged")})


def many_keys(state: State, canary: Path) -> bytes:
    more = {f"k{number}": 0 for number in range(10**5)}  # 100 bytes of memory each
    return sound(state | {part: state[part] | more for part in ("network", "averaged")})


def fewer_keys(state: State, canary: Path) -> bytes:
    """As many as are unpickled."""
    more = {f"k{number}": 0 for number in range(85_000)}
    data = sound(state | {part: state[part] | more for part in ("network", "averaged")})
    assert (
        len(next(each for name, each in records(data).items() if name.endswith("/data.pkl")))
        > 2 << 20
    )
    return data


def deep(state: State, canary: Path) -> bytes:
    """Lists in lists, deeper than Python's stack."""
    levels = 10**5
    inner = b"]" * levels + b"a" * (levels - 1)
    pickled = (
        b"\x80\x02}(X\x06\x00\x00\x00formatK\x01X\x04\x00\x00\x00keys]X\x01\x00\x00\x00x"
        + inner
        + b"u."
    )
    return with_pickle(saved(state), pickled)


def endless(state: State, canary: Path) -> bytes:
    """A list that contains itself."""
    loop: list[Any] = []
    loop.append(loop)
    return saved(state | {"keys": [], "x": loop})


def short_record(state: State, canary: Path) -> bytes:
    """A tensor that claims more bytes than there are."""
    data = records(saved({"format": 1, "x": torch.arange(8.0)}))
    name = next(name for name in data if name.endswith("/data.pkl"))
    return with_pickle(
        packed([*data.items()]),
        data[name].replace(b"K\x08", b"J" + (1 << 28).to_bytes(4, "little")),
    )


def no_recipe(state: State, canary: Path) -> bytes:
    return sound({key: value for key, value in state.items() if key != "recipe"})


def bad_recipe(state: State, canary: Path) -> bytes:
    return sound(state | {"recipe": "[" * 10**5})


def wrong_types(state: State, canary: Path) -> bytes:
    return sound(state | {"network": 3, "averaged": [1], "data": None, "space": 3})


def large_structure(state: State, canary: Path) -> bytes:
    """More than tensors need to be described; objects take ten times the bytes that they are pickled in."""
    return sound(state | {"x": "a" * (17 << 20)})


PAYLOADS: Mapping[str, Callable[[State, Path], bytes]] = {
    make.__name__: make
    for make in (
        system, numpy_gadget, evaluated, in_a_tensor, nested, two_pickles, two_pickles_reversed, bare_pickle,
        old_format, old_format_with_a_zip_behind, torchscript, deflate_bomb, stride_zero, many_keys, fewer_keys,
        large_structure, deep, endless, short_record, no_recipe, bad_recipe, wrong_types,
    )
}  # fmt: skip
