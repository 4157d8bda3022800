"""What training does to boxes of a micro-batch: planned on the host, done where the frames are.

How many boxes are left of a clip is the length of tensors, so the host finds that out, from the
clip's own random words; where they are is then worked out on the device, all of them together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from videomae_fast.data.boxes.detection_views import BoxRule, PlannedView, viewed_boxes
from videomae_fast.data.boxes.entries import KeyFrameEntry
from videomae_fast.data.boxes.geometry import clipped, flipped, moved
from videomae_fast.data.randomness import Randomness


@dataclass(frozen=True)
class BoxDraws:
    """How training takes the boxes of a clip.

    Attributes:
        most: of a clip; of more, so many are drawn.
        outwards, inwards: the furthest that an edge moves, see
            :func:`~videomae_fast.data.boxes.geometry.moved`.
    """

    most: int
    outwards: tuple[float, float]
    inwards: tuple[float, float]


@dataclass
class BoxPlan:
    """The boxes of a micro-batch, and what is to be done to each.

    Args:
        draws: how they are taken.
        classes: of the labels.

    Attributes:
        clip: of each box, the number of its clip.
        labels: bool [N, classes] in parts.
    """

    draws: BoxDraws
    classes: int
    clip: list[int] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    # Of each box: its place in the decoded frame, scale and offset of x and y, whether it is
    # flipped, and what is drawn for its four edges
    _rows: list[Tensor] = field(default_factory=list)
    _side: int = 1
    _rule: BoxRule = "repaired"

    def add(self, clip: int, entry: KeyFrameEntry, plan: PlannedView, draw: Randomness) -> None:
        """Takes the boxes of a key frame that are in a view of it, and draws how they move.

        Args:
            clip: number of the clip.
            entry: the key frame.
            plan: of the clip; cuts squares of one side, in all of a micro-batch.
            draw: of the clip.
        """
        view = plan.view
        assert view.crop is not None  # training cuts
        top, left, self._side = view.crop
        self._rule = view.boxes
        rows, there = entry.in_frame(entry.boxes, plan.frame)
        _, kept = viewed_boxes(rows, plan.frame, view)
        rows, labels = rows[kept], torch.from_numpy(entry.labels)[there][kept]
        if len(rows) > self.draws.most:
            keys = torch.tensor([draw.uniform() for _ in rows], dtype=torch.float64)
            chosen = keys.argsort()[: self.draws.most].sort().values
            rows, labels = rows[chosen], labels[chosen]
        uniform = torch.tensor([draw.uniform() for _ in range(4 * len(rows))]).view(-1, 4)
        (height, width), (old_height, old_width) = view.size, plan.frame
        same = [width / old_width, height / old_height, left, top, float(view.flip)]
        self._rows.append(
            torch.cat([rows, torch.tensor([same] * len(rows)).view(-1, 5), uniform], 1)
        )
        self.labels.append(labels)
        self.clip += [clip] * len(rows)

    def boxes(self, device: torch.device) -> Tensor:
        """fp32 [N, 4] on the device: x1, y1, x2, y2 in pixels of the clips, moved."""
        every = torch.cat([torch.empty(0, 13), *self._rows])
        if device.type == "cuda":
            every = every.pin_memory()
        every = every.to(device, non_blocking=True)
        rows, scale, offset, turned, uniform = torch.split(every, [4, 2, 2, 1, 4], 1)
        size = (self._side, self._side)
        found = rows * scale.repeat(1, 2) - offset.repeat(1, 2)
        found = found.clamp(0, self._side) if self._rule == "official" else clipped(found, size)
        found = torch.where(turned > 0, flipped(found, self._side), found)
        return moved(found, uniform, size, self.draws.outwards, self.draws.inwards)

    def every_label(self) -> Tensor:
        """bool [N, classes]."""
        return torch.cat([torch.empty((0, self.classes), dtype=torch.bool), *self.labels])
