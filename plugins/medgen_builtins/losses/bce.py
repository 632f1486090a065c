"""Binary cross-entropy of masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import LossSettings, hookimpl, settings

if TYPE_CHECKING:
    import torch

    from medgen.api.interfaces import LossFunction

medgen_api = 1


@settings
class Bce(LossSettings):
    """Binary cross-entropy of each pixel of a mask, where 2 x0 is the logit: 0 is undecided, as
    where masks are cut.
    """

    needs = ("x0",)

    def build(self, device: torch.device) -> LossFunction:
        from medgen_builtins.losses._bce import cross_entropy

        return cross_entropy


@hookimpl
def medgen_losses() -> dict[str, type]:
    return {"bce": Bce}
