"""The library's ops: contract, plain-torch reference, registration, choice of backend."""

from videomae_fast.ops._former_names import keep
from videomae_fast.ops.add_layer_norm import add_layer_norm
from videomae_fast.ops.add_layer_norm_fp8 import add_layer_norm_fp8
from videomae_fast.ops.append_rows import append_rows
from videomae_fast.ops.attention import attention
from videomae_fast.ops.augmented_views import AugmentedView, augmented_views
from videomae_fast.ops.bias_gelu import bias_gelu
from videomae_fast.ops.bias_gelu_fp8 import bias_gelu_fp8
from videomae_fast.ops.bilinear_resize import bilinear_resize
from videomae_fast.ops.crop_resize import crop_resize
from videomae_fast.ops.decoder_assembly import decoder_assembly
from videomae_fast.ops.fp8_linear import fp8_linear
from videomae_fast.ops.gelu_mlp import gelu_mlp
from videomae_fast.ops.hsv_jitter import hsv_jitter
from videomae_fast.ops.linear import linear
from videomae_fast.ops.mask_indices import mask_indices
from videomae_fast.ops.mix_clips import mix_clips
from videomae_fast.ops.packed_attention import packed_attention
from videomae_fast.ops.packed_qkv import packed_bias
from videomae_fast.ops.patch_gather import IMAGENET_MEAN, IMAGENET_STD, patch_gather
from videomae_fast.ops.pixel_mse import pixel_mse
from videomae_fast.ops.pixel_mse_with_gradient import (
    gradient_root,
    pixel_mse_with_gradient,
    start_backward,
)
from videomae_fast.ops.pixel_target import pixel_target
from videomae_fast.ops.quantize_rows import Quantized, quantize_rows
from videomae_fast.ops.rand_augment import rand_augment
from videomae_fast.ops.resized_view import resized_view
from videomae_fast.ops.roi_features import roi_features
from videomae_fast.ops.token_gather import token_gather, token_scatter

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "AugmentedView",
    "Quantized",
    "add_layer_norm",
    "add_layer_norm_fp8",
    "append_rows",
    "attention",
    "augmented_views",
    "bias_gelu",
    "bias_gelu_fp8",
    "bilinear_resize",
    "crop_resize",
    "decoder_assembly",
    "fp8_linear",
    "gelu_mlp",
    "gradient_root",
    "hsv_jitter",
    "linear",
    "mask_indices",
    "mix_clips",
    "packed_attention",
    "packed_bias",
    "patch_gather",
    "pixel_mse",
    "pixel_mse_with_gradient",
    "pixel_target",
    "quantize_rows",
    "rand_augment",
    "resized_view",
    "roi_features",
    "start_backward",
    "token_gather",
    "token_scatter",
]

keep(__name__)
