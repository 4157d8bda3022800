"""The token grid of a clip."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """The token grid of a clip. Tokens are ordered by slot, then row, then column.

    Attributes:
        slots: time slots, of a tubelet's frames each.
        height: rows of tokens.
        width: columns of tokens.
    """

    slots: int
    height: int
    width: int

    @property
    def space(self) -> int:
        """Positions of one slot."""
        return self.height * self.width

    @property
    def tokens(self) -> int:
        return self.slots * self.space

    def __ne__(self, other: object) -> bool:
        # object's own, which negates __eq__, fails in torch.compile where sizes are symbolic
        return not self == other

    @staticmethod
    def of(
        frames: int, image_size: int | tuple[int, int], tubelet_size: int, patch_size: int
    ) -> Grid:
        """The grid of clips of `frames` frames of `image_size` (side, or (height, width)) pixels.

        Raises:
            ValueError: the tubelet or the patch does not divide its size.
        """
        h, w = (image_size, image_size) if isinstance(image_size, int) else image_size
        for name, size, unit, what in (
            ("frames", frames, tubelet_size, "tubelet_size"),
            ("image height", h, patch_size, "patch_size"),
            ("image width", w, patch_size, "patch_size"),
        ):
            if size <= 0 or size % unit:
                raise ValueError(f"{name} {size} is not a positive multiple of {what} {unit}")
        return Grid(frames // tubelet_size, h // patch_size, w // patch_size)
