"""Probes of frozen features, stored once: linear, attentive and nearest neighbours.

Features of a model that is not trained are the same in every epoch, so many heads, each with its
learning rate and weight decay, learn from them at once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videomae_fast.evaluation.chance import verdict
from videomae_fast.models.attentive_probe import AttentiveProbe

RATES: Final = tuple(rate * 1e-3 for rate in (5.0, 3.0, 1.0, 0.3, 0.1))
DECAYS: Final = (0.01, 0.1, 0.4, 0.8)


@dataclass(frozen=True)
class ProbeScore:
    """A head's score on the validation features.

    Attributes:
        learning_rate, weight_decay: it was trained with.
        accuracy: top-1, between 0 and 1.
    """

    learning_rate: float
    weight_decay: float
    accuracy: float


@dataclass(frozen=True)
class ProbeResult:
    """What probing gave.

    Attributes:
        scores: of all heads, the best first.
        head: the best one, in evaluation mode.
        warning: where even the best is at chance level, what may be the cause; else None.
    """

    scores: tuple[ProbeScore, ...]
    head: nn.Module
    warning: str | None

    @property
    def best(self) -> ProbeScore:
        """The best head's score."""
        return self.scores[0]


def linear_probe(
    features: Tensor,
    labels: Tensor,
    validation: Tensor,
    validation_labels: Tensor,
    *,
    classes: int | None = None,
    rates: Sequence[float] = RATES,
    decays: Sequence[float] = DECAYS,
    epochs: int = 20,
    batch: int = 256,
    seed: int = 0,
) -> ProbeResult:
    """Trains a linear head per learning rate and weight decay, all at once.

    Features are standardised by mean and deviation of the training ones; the returned head does
    that itself. AdamW; the rate falls to 0 along a cosine, without warm-up.

    Args:
        features: float [N, width], pooled, on the device to train on.
        labels: int64 [N].
        validation: float [M, width].
        validation_labels: int64 [M].
        classes: None: as many as the largest label says.
        rates, decays: every pair of them gets a head.
        epochs: passes over the features.
        batch: features per step; a last smaller batch counts as a step.
        seed: of the order of features, and of the heads' first weights.

    Returns:
        The scores and the best head.

    Raises:
        ValueError: shapes or labels that do not fit, or no rate, decay, epoch or batch.
    """
    classes = _checked(features, labels, validation, validation_labels, classes, dims=2)
    scale = _Standardise(features)
    train, held_out = scale(features.float()), scale(validation.float())
    return _probe(
        lambda: nn.Linear(features.shape[1], classes),
        (train, labels), (held_out, validation_labels), classes,
        rates, decays, epochs, batch, seed, finish=lambda head: nn.Sequential(scale, head),
    )  # fmt: skip


def attentive_probe(
    tokens: Tensor,
    labels: Tensor,
    validation: Tensor,
    validation_labels: Tensor,
    *,
    heads: int,
    classes: int | None = None,
    depth: int = 4,
    rates: Sequence[float] = RATES,
    decays: Sequence[float] = DECAYS,
    epochs: int = 20,
    batch: int = 32,
    seed: int = 0,
) -> ProbeResult:
    """Trains an attentive probe per learning rate and weight decay, on the same batches.

    Args:
        tokens: float [N, tokens, width], on the device to train on.
        labels: int64 [N].
        validation: float [M, tokens, width].
        validation_labels: int64 [M].
        heads: of every attention; 16 for ViT-L.
        classes, rates, decays, epochs, batch, seed: as :func:`linear_probe`.
        depth: blocks, as :class:`~videomae_fast.models.attentive_probe.AttentiveProbe`.

    Returns:
        The scores and the best probe.

    Raises:
        ValueError: as :func:`linear_probe`.

    Source: evals/video_classification_frozen of facebookresearch/vjepa2, for rates and decays.
    """
    classes = _checked(tokens, labels, validation, validation_labels, classes, dims=3)
    return _probe(
        lambda: AttentiveProbe(tokens.shape[2], heads, classes, depth=depth),
        (tokens, labels), (validation, validation_labels), classes,
        rates, decays, epochs, batch, seed, finish=lambda head: head,
    )  # fmt: skip


def nearest_neighbours(
    features: Tensor,
    labels: Tensor,
    queries: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    classes: int | None = None,
    chunk: int = 1024,
) -> Tensor:
    """Classes by votes of the k most similar features, each weighted exp(cosine / temperature).

    Args:
        features: float [N, width].
        labels: int64 [N].
        queries: float [M, width].
        k: neighbours; all where there are fewer.
        temperature: above 0; a small one lets the nearest decide.
        classes: None: as many as the largest label says.
        chunk: queries at once.

    Returns:
        float32 [M, classes]: shares of the votes, which add up to 1.

    Raises:
        ValueError: shapes or labels that do not fit, or a number that is not above 0.
    """
    if k < 1 or chunk < 1 or not temperature > 0:
        raise ValueError(f"k ({k}), chunk ({chunk}) and temperature ({temperature}) must exceed 0")
    classes = _checked(features, labels, queries, labels.new_zeros(len(queries)), classes, dims=2)
    stored = F.normalize(features.float(), dim=1)
    votes = []
    for some in torch.split(queries.float(), chunk):
        similar, index = (F.normalize(some, dim=1) @ stored.T).topk(min(k, len(stored)), dim=1)
        weight = (similar / temperature).softmax(1)
        shares = weight.new_zeros(len(some), classes)
        votes.append(shares.scatter_add_(1, labels[index], weight))
    return torch.cat(votes)


def chance_warning(accuracy: float, labels: Tensor, classes: int) -> str | None:
    """What to look at where an accuracy is no better than guessing.

    Chance is the larger of 1 / classes and the share of the most frequent label; see
    :func:`videomae_fast.evaluation.chance.verdict`.

    Args:
        accuracy: top-1, between 0 and 1.
        labels: int64 [M], those that it was measured on.
        classes: of the head.

    Returns:
        A warning, a note where so few videos could not tell, or None.
    """
    count = len(labels)
    chance = max(1 / classes, float(torch.bincount(labels).max()) / count)
    found = verdict(accuracy, count, chance)
    if found == "better":
        return None
    if found == "too few":
        told = f"accuracy {accuracy:.1%} on {count:,} videos"
        return f"{told}: too few to tell from guessing ({chance:.1%})"
    return (
        f"accuracy {accuracy:.1%} on {count:,} videos is chance level ({chance:.1%} by guessing): "
        "see that the labels of both lists count classes in the same order, that frames were "
        "normalised as the model was trained (pixels), and that its weights were loaded, not drawn"
    )


class _Standardise(nn.Module):
    mean: Tensor
    factor: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        values = features.float()
        self.register_buffer("mean", values.mean(0))
        self.register_buffer("factor", 1 / values.std(0, correction=0).clamp_min(1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.factor


Labelled = tuple[Tensor, Tensor]


def _probe(
    make: Callable[[], nn.Module],
    training: Labelled,
    validation: Labelled,
    classes: int,
    rates: Sequence[float],
    decays: Sequence[float],
    epochs: int,
    batch: int,
    seed: int,
    *,
    finish: Callable[[nn.Module], nn.Module],
) -> ProbeResult:
    if not rates or not decays or epochs < 1 or batch < 1:
        raise ValueError("a probe needs a learning rate, a weight decay, an epoch and a batch")
    inputs, labels = training
    pairs = list(product(rates, decays))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # all heads begin alike, so that their settings alone differ
        first = make().to(inputs.device)
    heads = [copy.deepcopy(first) for _ in pairs]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(head.parameters()), "lr": rate, "weight_decay": decay}
            for head, (rate, decay) in zip(heads, pairs, strict=True)
        ]
    )
    steps = epochs * math.ceil(len(inputs) / batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        shuffled = torch.randperm(len(inputs), generator=order).to(inputs.device)
        for index in torch.split(shuffled, batch):
            some, wanted = inputs[index].float(), labels[index]
            optimizer.zero_grad()
            # One backward for all: a head's gradient comes from its own loss alone
            losses = [F.cross_entropy(head(some), wanted) for head in heads]
            torch.autograd.backward(losses)
            optimizer.step()
            schedule.step()
    found = [_accuracy(head.eval(), *validation, batch) for head in heads]
    scores = [ProbeScore(*pair, accuracy) for pair, accuracy in zip(pairs, found, strict=True)]
    best = max(range(len(heads)), key=found.__getitem__)
    return ProbeResult(
        tuple(sorted(scores, key=lambda score: -score.accuracy)),
        finish(heads[best]).eval(),
        chance_warning(found[best], validation[1], classes),
    )


@torch.no_grad()
def _accuracy(head: nn.Module, inputs: Tensor, labels: Tensor, batch: int) -> float:
    right = 0
    for some, wanted in zip(torch.split(inputs, batch), torch.split(labels, batch), strict=True):
        right += int((head(some.float()).argmax(1) == wanted).sum())
    return right / len(labels)


def _checked(
    features: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    classes: int | None,
    *,
    dims: int,
) -> int:
    """The number of classes."""
    shape = "[N, width]" if dims == 2 else "[N, tokens, width]"
    for name, values, told in (("training", features, labels), ("other", others, other_labels)):
        if values.ndim != dims or not len(values) or len(told) != len(values) or told.ndim != 1:
            raise ValueError(
                f"{name} features must be {shape} with a label each, got {list(values.shape)} and "
                f"{list(told.shape)} labels"
            )
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name} features hold values that are not finite")
    if features.shape[1:] != others.shape[1:]:
        raise ValueError(
            f"training features are {list(features.shape)}, the others {list(others.shape)}"
        )
    least = min(int(labels.min()), int(other_labels.min()))
    most = max(int(labels.max()), int(other_labels.max()))
    if classes is None:
        classes = most + 1
    if least < 0 or most >= classes:
        raise ValueError(f"labels go from {least} to {most}, for {classes} classes")
    return classes
