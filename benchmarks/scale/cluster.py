"""What a step of a run on many GPUs holds, moves and takes: formulas alone, modelled.

A model of P parameters is trained by AdamW with fp32 weights and moments, on N GPUs in nodes of
equal size. S of them hold one copy of the states together, N / S copies are kept equal. Weights are
gathered in bf16, gradients added up in fp32. S = 1 is DDP.

Communication is overlapped with the computation of a pass: what is longer than 0.8 of it shows, and
the last piece always does. The times are good to about 30 %, their network parts to a factor of 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

MOMENTS = 8
"""Bytes of AdamW's two moments per parameter."""

_BUCKET = 25e6  # bytes of gradients that DDP adds up at once
_OVERLAP = 0.8  # share of a pass behind which communication can hide
_JITTER = 1.05  # collectives take multiprocessors, and the slowest GPU counts


@dataclass(frozen=True)
class Card:
    """A GPU in its node.

    Attributes:
        name: of the GPU.
        memory: bytes.
        link: bytes per second and GPU in gathers and scatters within a node.
        network: bytes per second and GPU between nodes.
        hop: seconds of a ring's step between neighbours.
        level: seconds of a level of a tree over nodes.
        per_node: GPUs of a node.
    """

    name: str
    memory: float
    link: float = 350e9
    network: float = 42e9
    hop: float = 2.5e-6
    level: float = 10e-6
    per_node: int = 8


CARDS = {card.name: card for card in (Card("H100", 80e9), Card("H200", 141e9))}


@dataclass(frozen=True)
class Model:
    """A model as far as it matters here.

    Attributes:
        parameters: of all.
        largest: of the largest block.
        within: of all blocks.
        blocks: that are gathered one by one; the rest is one more piece, and kept until backward.
        gathered: bytes of a parameter that is gathered: 2 in bf16, 4 in fp32.
    """

    parameters: int
    largest: int
    within: int
    blocks: int
    gathered: int = 2

    @property
    def pieces(self) -> int:
        """Of what is gathered and scattered in a step."""
        return self.blocks + 1


@dataclass(frozen=True)
class Layout:
    """Where the states lie.

    Attributes:
        gpus: N.
        shard: S, GPUs that hold one copy together.
        reshard: gathered weights are freed after each block, and gathered again in backward.

    Raises:
        ValueError: numbers that don't divide.
    """

    gpus: int
    shard: int = 1
    reshard: bool = False

    def __post_init__(self) -> None:
        if self.gpus < 1 or not 1 <= self.shard <= self.gpus or self.gpus % self.shard:
            raise ValueError(f"{self.gpus} GPUs can't be copies of {self.shard} each")
        if self.reshard and self.shard == 1:
            raise ValueError("nothing is gathered where nothing is sharded: no reshard")

    @property
    def copies(self) -> int:
        """Of all states."""
        return self.gpus // self.shard

    @property
    def name(self) -> str:
        """For a table."""
        if self.shard == 1:
            return "DDP"
        kind = "flat" if self.copies == 1 else "HSDP"
        return f"{kind} {self.shard}, {'reshard' if self.reshard else 'no reshard'}"


def states(model: Model, layout: Layout) -> float:
    """Bytes of weights, gradients and moments on a GPU, gathered weights included.

    DDP has a bf16 copy of the weights beside them, which autocast makes.
    """
    total, shard = model.parameters, layout.shard
    if shard == 1:
        copy = 0 if model.gathered == 4 else model.gathered  # fp32 needs none
        return (4 + 4 + MOMENTS + copy) * total
    own = (4 + 4 + MOMENTS) * total / shard
    piece = (model.gathered + 4) * model.largest  # weights, and the gradient to be scattered
    if layout.reshard:
        return own + 3 * (piece + 2 * model.largest)
    return own + model.gathered * total + 3 * piece


def moved(model: Model, layout: Layout) -> float:
    """Bytes that a GPU sends in a step of one micro-batch."""
    total, shard, copies = model.parameters, layout.shard, layout.copies
    gathered = total + (model.within if layout.reshard else 0)
    within = (shard - 1) / shard * (model.gathered * gathered + 4 * total)
    return within + 2 * (copies - 1) / copies * 4 * total / shard


@dataclass(frozen=True)
class Step:
    """Seconds of a step.

    Attributes:
        compute: forward and backward passes.
        forward, backward: communication that belongs to each.
        exposed: of that, what nothing hides.
        update: AdamW.
    """

    compute: float
    forward: float
    backward: float
    exposed: float
    update: float

    @property
    def total(self) -> float:
        """Of the whole step."""
        return _JITTER * self.compute + self.update + self.exposed

    @property
    def efficiency(self) -> float:
        """Of what the GPUs could do, were there nothing but the passes."""
        return self.compute / self.total


def step(model: Model, layout: Layout, card: Card, *, compute: float, update: float) -> Step:
    """The time of a step.

    Args:
        model, layout, card: what, how and where.
        compute: seconds of a GPU's forward and backward passes.
        update: seconds of AdamW on a GPU that holds everything.
    """
    gather = _over(model.gathered * model.parameters, layout, card)
    scatter = _over(4 * model.parameters, layout, card)
    if layout.shard > 1:
        latency = model.pieces * layout.shard * card.hop
        gather, scatter = gather + latency, scatter + latency
    again = gather if layout.reshard else 0.0
    forward = gather if layout.shard > 1 else 0.0
    backward = max((scatter if layout.shard > 1 else 0.0) + again, _added_up(model, layout, card))
    hidden = max(0.0, forward - _OVERLAP * compute / 3)
    hidden += max(0.0, backward - _OVERLAP * 2 * compute / 3)
    exposed = hidden + (forward + backward) / model.pieces
    return Step(compute, forward, backward, exposed, update / layout.shard)


def _over(amount: float, layout: Layout, card: Card) -> float:
    """Seconds to gather or scatter so many bytes over the GPUs that share one copy."""
    shard = layout.shard
    if shard <= card.per_node:
        return (shard - 1) / shard * amount / card.link
    return amount / (card.per_node * card.network)


def _added_up(model: Model, layout: Layout, card: Card) -> float:
    """Seconds to add up the gradients of all copies."""
    if layout.copies == 1:
        return 0.0
    amount = 4 * model.parameters
    if layout.shard > 1:  # each GPU its shard, with those of its place in the other copies
        copies = layout.copies
        speed = card.network if layout.gpus > card.per_node else card.link
        latency = model.pieces * 2 * log2(copies) * card.level
        return 2 * (copies - 1) / copies * amount / layout.shard / speed + latency
    buckets = max(1.0, amount / _BUCKET)
    if layout.gpus <= card.per_node:
        ring = 2 * (layout.gpus - 1) / layout.gpus * amount / card.link
        return ring + buckets * 2 * layout.gpus * card.hop
    nodes = layout.gpus / card.per_node
    return 2 * amount / (card.per_node * card.network) + buckets * 2 * log2(nodes) * card.level
