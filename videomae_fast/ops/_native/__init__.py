"""The compiled CPU library (``csrc/``) behind ctypes: one typed function per op.

The functions take the arguments of their op, CPU tensors of the dtypes that its declaration names,
in shapes that its contract has checked; nothing but the op, in ``videomae_fast/ops/<op>.py``, may
call them. What only the values show, a token position out of range, the library itself refuses.
"""

from __future__ import annotations

from videomae_fast.ops._native.augment import (
    augmented_view,
    bilinear_resize,
    hsv_jitter,
    mix_clips,
    rand_augment,
    resized_view,
)
from videomae_fast.ops._native.calls import in_fp32
from videomae_fast.ops._native.crops import crop_resize
from videomae_fast.ops._native.heads import (
    attention,
    attention_backward,
    packed_attention,
    packed_attention_backward,
)
from videomae_fast.ops._native.loader import (
    instruction_set,
    library,
    library_path,
    why_missing,
)
from videomae_fast.ops._native.pixels import (
    patch_gather,
    pixel_mse,
    pixel_mse_backward,
    pixel_mse_with_gradient,
)
from videomae_fast.ops._native.rois import roi_features, roi_features_backward
from videomae_fast.ops._native.rows import (
    add_layer_norm,
    add_layer_norm_backward,
    bias_gelu,
    bias_gelu_backward,
)
from videomae_fast.ops._native.tokens import (
    append_rows,
    append_rows_backward,
    decoder_assembly,
    decoder_assembly_backward,
    token_gather,
    token_scatter,
)

__all__ = [
    "add_layer_norm",
    "add_layer_norm_backward",
    "append_rows",
    "append_rows_backward",
    "attention",
    "attention_backward",
    "augmented_view",
    "bias_gelu",
    "bias_gelu_backward",
    "bilinear_resize",
    "crop_resize",
    "decoder_assembly",
    "decoder_assembly_backward",
    "hsv_jitter",
    "in_fp32",
    "instruction_set",
    "library",
    "library_path",
    "mix_clips",
    "packed_attention",
    "packed_attention_backward",
    "patch_gather",
    "pixel_mse",
    "pixel_mse_backward",
    "pixel_mse_with_gradient",
    "rand_augment",
    "resized_view",
    "roi_features",
    "roi_features_backward",
    "token_gather",
    "token_scatter",
    "why_missing",
]
