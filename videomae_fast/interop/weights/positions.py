"""Tables of positions that other code stores: the fixed sinusoid is computed here."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.weights.model_weights import Change
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.positions import sinusoid_table


def is_sinusoid(table: Tensor) -> bool:
    """Whether a table [1, tokens, width] is the fixed sinusoid, also one of half precision."""
    if table.ndim != 3 or table.shape[0] != 1 or not table.numel():
        return False
    close = 1e-5 if table.dtype == torch.float32 else 1e-2
    right = sinusoid_table(table.shape[1], table.shape[2])
    return bool((table.float() - right).abs().max() <= close)


def without_sinusoids(tables: Mapping[str, Tensor], config: MAEConfig, origin: str) -> list[Change]:
    """The change that leaves position tables out, after a look at each.

    Args:
        tables: by their names in the source: ``pos_embed``, ``….embeddings.position_embeddings``
            of the encoder, ``position_embeddings`` of the decoder.
        config: of the model.
        origin: the source's name, for messages.

    Raises:
        WeightsError: a table is not the fixed sinusoid of the config's grid.
    """
    for key, table in tables.items():
        width = config.width if "embeddings." in key or "pos_embed" in key else config.decoder_width
        if table.shape != (1, config.grid.tokens, width) or not is_sinusoid(table):
            raise WeightsError(f"{origin}: {key} is not the fixed sinusoid of {config.grid}")
    if not tables:
        return []
    return [Change("left out", "the fixed sinusoid, which is computed", dict(tables))]
