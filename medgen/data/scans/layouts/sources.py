"""What the channels of a mode are read from."""

from __future__ import annotations

from medgen.api.tables import DEFAULT_MASK, DataSettings, MaskSettings


def mask_names(settings: DataSettings) -> frozenset[str]:
    """Return the channels that are masks."""
    return frozenset(settings.masks or {DEFAULT_MASK})


def mask(settings: DataSettings, channel: str) -> MaskSettings:
    """Return what the mask `channel` is made of."""
    return settings.masks[channel] if settings.masks else MaskSettings(file=DEFAULT_MASK, labels=[])


def source(settings: DataSettings, channel: str) -> str:
    """Return the key in `Patient.files` that a channel is read from."""
    return mask(settings, channel).file if channel in mask_names(settings) else channel
