"""The table [data.augment]: how slices and volumes that are trained on are changed."""

from __future__ import annotations

from medgen.api.settings import field, settings
from medgen.api.value_checks import between


@settings
class AugmentSettings:
    """Changes of whole slices and volumes that are trained on, drawn anew each time one is seen; all
    0: none.

    What is generated has them too, as it looks like what was trained on.
    """

    flip: float = field(
        0.0, help="probability, 0 to 1, that left and right are exchanged", check=between(0, 1)
    )
    rotate: float = field(
        0.0,
        help="largest angle, degrees, to either side; of volumes about each of three axes",
        check=between(0, 90),
    )
    scale: float = field(
        0.0, help="largest growth of a side, as a share; shrinks by as much", check=between(0, 1)
    )
    shift: float = field(
        0.0, help="largest shift, mm, along each axis, in whole px", check=between(0, 1000)
    )

    @property
    def on(self) -> bool:
        """Return True if samples are changed at all."""
        return self.flip > 0 or self.affine

    @property
    def affine(self) -> bool:
        """Return True if samples are turned, scaled or shifted."""
        return max(self.rotate, self.scale, self.shift) > 0
