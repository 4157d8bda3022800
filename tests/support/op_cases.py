"""Arguments for every registered op, tiny: what opcheck runs."""

from __future__ import annotations

from typing import Any

import torch

from videomae_fast.ops import IMAGENET_MEAN, IMAGENET_STD

CHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)
OF_A_BACKEND = CHECKS[:3]
"""Without symbols for sizes: these are the registration's, which the reference stands for."""
# Where torch's harness itself would add up or multiply e4m3, which torch can't.
_NOT_IN_E4M3 = {
    "add_layer_norm_fp8": "test_aot_dispatch_dynamic",
    "bias_gelu_fp8": "test_aot_dispatch_dynamic",
    "fp8_linear": "test_schema",
}


def possible_checks(name: str) -> tuple[str, ...]:
    """What opcheck can look at of an op: all, but for one where e4m3 comes or goes."""
    return tuple(check for check in CHECKS if check != _NOT_IN_E4M3.get(name))


# Two views: their crops, flips, holes and seeds, and the operations of the first one
_PLAN = (
    torch.tensor(
        [[1, 1, 2, 5, 6, 1, 0, 0, 0, 0, 0, 0, 2], [0, 0, 0, 8, 8, 0, 1, 1, 2, 3, 9, 2, 0]]
    ),
    torch.tensor(
        [
            [10.0, 0.0, 1.0, 0.2, 0.0, 0.0, 1.0, 0.0, 0.0, 6.0, 0.0, 8.0],
            [1.0, *[0.0] * 7, 1.0, 6.0, 2.0, 8.0],
        ],
        dtype=torch.float64,
    ),
)


def opcheck_cases() -> dict[str, tuple[Any, ...]]:
    """Of each op its arguments, the backend last."""
    frames = torch.randint(0, 256, (2, 2, 8, 8, 3), dtype=torch.uint8)
    index = torch.tensor([[0, 3], [1, 1]], dtype=torch.int32)
    prediction = torch.randn(2, 2, 3 * 2 * 16, requires_grad=True)
    x = torch.randn(2, 4, 6, requires_grad=True)
    head = [torch.randn(2, 4, 2, 3, requires_grad=True) for _ in range(3)]
    count = torch.tensor([4, 2], dtype=torch.int32)
    table = torch.randn(4, 6)
    boxes = torch.tensor([[1.0, 2.0, 6.0, 8.0], [0.0, 0.0, 9.0, 5.0], [3.0, 1.0, 4.0, 1.0]])
    clip = torch.tensor([1, 0, 1])
    return {
        "patch_gather": (
            frames, index, 2, 4, list(IMAGENET_MEAN), list(IMAGENET_STD), torch.float32, "auto",
        ),
        "pixel_mse": (
            prediction, frames, index, torch.rand(2, 2), 2, 4, True, False, "auto",
        ),
        "pixel_mse_with_gradient": (
            prediction.detach(), frames, index, torch.rand(2, 2), 2, 4, True, True, 0.5, "auto",
        ),
        "gradient_root": (prediction, torch.randn(prediction.shape)),
        "pixel_mse_backward": (
            torch.tensor(1.0), prediction.detach(), frames, index, None, 2, 4, True, True, "auto",
        ),
        "rand_augment": (frames[0], [0, 5, 13], [0.0, 1.3, 0.2], "auto"),
        "bilinear_resize": (frames[0], 5, 11, "auto"),
        "resized_view": (
            frames[0], [1, 2, 5, 6], 7, 4, True, list(IMAGENET_MEAN), list(IMAGENET_STD), "auto",
        ),
        "crop_resize": (
            [torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8), frames[1, :, :6]],
            torch.tensor([[1, 2, 1, 5, 3, 1], [0, 0, 0, 7, 5, 0]]), 4, 6, "auto",
        ),
        "crop_resize_into": (
            [frames[0]], torch.tensor([[0, 2, 1, 5, 3, 1]]),
            torch.empty((1, frames.shape[1], 4, 6, 3), dtype=torch.uint8), "auto",
        ),
        "augmented_views": (
            [frames[0], frames[1, :, :6]], *_PLAN, 4, 5, list(IMAGENET_MEAN), list(IMAGENET_STD),
            "auto",
        ),
        "augmented_views_into": (
            [frames[0], frames[1, :, :6]], *_PLAN, list(IMAGENET_MEAN), list(IMAGENET_STD),
            torch.empty((2, frames.shape[1], 4, 5, 3)), "auto",
        ),
        "mix_clips": (
            torch.rand(2, 2, 4, 5, 3), torch.tensor([0.3, 1.0], dtype=torch.float64),
            torch.tensor([[0, 0, 0, 0], [1, 3, 0, 4]]), "auto",
        ),
        "token_gather": (x, index, "auto"),
        "token_scatter": (x, torch.tensor([[0, 4, 4, 1]] * 2, dtype=torch.int32), 5, "auto"),
        "decoder_assembly": (
            x, torch.randn(6, requires_grad=True), table,
            torch.tensor([[0, 1, 2, 3]] * 2, dtype=torch.int32), index, "auto",
        ),
        "decoder_assembly_backward": (x.detach(), 2, torch.float32, "auto"),
        "append_rows": (x, torch.randn(5, 6, requires_grad=True), index, "auto"),
        "append_rows_backward": (x.detach(), index, 5, "auto"),
        "hsv_jitter": (frames, torch.tensor([[3, -20, 9], [-170, 300, 1]]), "auto"),
        "roi_features": (x, boxes, clip, 1, 2, 2, 3, 0.25, 0, False, "auto"),
        "roi_features_backward": (
            torch.randn(3, 6), clip, torch.randint(9, (3, 6), dtype=torch.int32),
            torch.rand(3, 3, 2), torch.rand(3, 3, 2), 2, 1, "auto",
        ),
        "attention": (*head, count, "reference"),
        "attention_backward": (
            head[0].detach(), *(h.detach() for h in head), None, head[0].detach(),
            torch.randn(2, 2, 4), "reference",
        ),
        "packed_attention": (
            torch.randn(2, 4, 2, 2, 3, requires_grad=True), head[0],
            torch.randn(6, requires_grad=True), torch.randn(6, requires_grad=True), count,
            "reference",
        ),
        "packed_attention_backward": (
            head[0].detach(), torch.randn(2, 4, 3, 2, 3), None, torch.randn(6), torch.randn(6),
            None, head[0].detach(), torch.randn(2, 2, 4), True, True, "reference",
        ),
        "packed_bias": (torch.randn(6), torch.randn(6), torch.bfloat16, "auto"),
        "packed_join": (
            *(h.detach() for h in head), torch.randn(6), torch.randn(6), False, "auto",
        ),
        "linear": (
            x, torch.randn(5, 6, requires_grad=True), torch.randn(5, requires_grad=True),
            "reference",
        ),
        "linear_backward": (
            torch.randn(2, 4, 5), x.detach(), torch.randn(5, 6), True, True, "reference",
        ),
        "bias_gelu": (x, torch.randn(6, requires_grad=True), "auto"),
        "bias_gelu_backward": (x.detach(), x.detach(), torch.randn(6), "auto"),
        "gelu_mlp": (
            x, torch.randn(5, 6, requires_grad=True), torch.randn(5, requires_grad=True),
            torch.randn(3, 5, requires_grad=True), "auto",
        ),
        "gelu_mlp_backward": (
            torch.randn(2, 4, 3), x.detach(), torch.randn(5, 6), torch.randn(5), torch.randn(3, 5),
            torch.randn(2, 4, 5), torch.randn(2, 4, 5), True, "auto",
        ),
        "add_layer_norm": (
            x, torch.randn(2, 4, 6, requires_grad=True),
            *(torch.randn(6, requires_grad=True) for _ in range(4)), torch.ones(2), 1e-6, "auto",
        ),
        "add_layer_norm_backward": (
            x.detach(), None, x.detach(), torch.randn(2, 4), torch.rand(2, 4), torch.randn(6),
            None, None, None, None, True, "auto",
        ),
        "add_layer_norm_fp8": (
            x, torch.randn(2, 4, 6, requires_grad=True),
            *(torch.randn(6, requires_grad=True) for _ in range(4)), torch.ones(2), 1e-6, "auto",
        ),
        "bias_gelu_fp8": (x, torch.randn(6, requires_grad=True), "auto"),
        "quantize_rows": (x.detach(), torch.rand(6), "auto"),
        "fp8_linear": (
            x, x.detach().to(torch.float8_e4m3fn), torch.ones(2, 4),
            torch.randn(5, 6, requires_grad=True), torch.randn(5, requires_grad=True), "auto",
        ),
        "fp8_linear_backward": (
            torch.randn(2, 4, 5), x.detach(), torch.randn(5, 6), True, True, "auto",
        ),
        "mask_indices": (
            torch.arange(3), 4, 2, 2, "tube", 2, "running-cell", 2, False, False, 8, 8, 4, "auto",
        ),
    }  # fmt: skip
