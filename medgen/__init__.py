"""Labelled synthetic brain MRI. What authors of plugins import; it imports no torch."""

from medgen.api.hooks import hookimpl
from medgen.api.interfaces import Batch, Draws, Mode, Noisy, Prediction, TurnOutput
from medgen.api.settings import between, field, ge, gt, one_of, settings

__version__ = "0.1.0"
__all__ = [
    "Batch",
    "Draws",
    "Mode",
    "Noisy",
    "Prediction",
    "TurnOutput",
    "between",
    "field",
    "ge",
    "gt",
    "hookimpl",
    "one_of",
    "settings",
]
