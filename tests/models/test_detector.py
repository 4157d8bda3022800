"""The action detector against the official one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.backends import ALL
from tests.support.downstream import downstream
from tests.support.interpreter import ON_GPU, SWITCH
from videomae_fast import ActionDetector, Grid, MAEConfig
from videomae_fast.models.detection_loss import detection_loss
from videomae_fast.models.transformer import add
from videomae_fast.ops import roi_features
from videomae_fast.ops.registry import forced

OFFICIAL = downstream("ava_model")
Golden = tuple[dict[str, Any], dict[str, Tensor]]


@pytest.fixture(scope="module")
def golden() -> Golden:
    return OFFICIAL.info, OFFICIAL.tensors


@pytest.fixture
def model() -> ActionDetector:
    made = ActionDetector(OFFICIAL.config, OFFICIAL.info["num_classes"])
    made.load_state_dict(OFFICIAL.parameters)
    return made


def test_the_batch_is_the_official_one(model: ActionDetector, golden: Golden) -> None:
    _, data = golden
    batch = model.batch([data["clip0"], data["clip1"]])
    b, c, t, h, w = data["batch_shape"].tolist()
    assert batch.shape == (b, t, h, w, c)
    first = batch[:, 0].permute(0, 3, 1, 2)
    torch.testing.assert_close(first, data["batch_frame0"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(batch.norm(), data["batch_norm"], rtol=1e-5, atol=0.0)


@pytest.fixture(params=ALL)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """RoI features by each backend, on the CPU: Triton's kernels interpreted."""
    name = request.param
    if name == "triton" and ON_GPU:
        pytest.skip("kernels are compiled here: tests/ops runs them on the GPU")
    with (
        pytest.MonkeyPatch.context() as patch,
        forced("auto", roi_features=name, roi_features_backward=name),
    ):
        patch.setenv(SWITCH, "1" if name == "triton" else "0")
        yield


@pytest.mark.usefixtures("backend")
def test_features_and_logits_are_the_official_ones(model: ActionDetector, golden: Golden) -> None:
    _, data = golden
    model.eval()
    batch = model.batch([data["clip0"], data["clip1"]])
    boxes = [data["test.extended0"], data["test.extended1"]]
    features = model.features(batch, boxes)
    torch.testing.assert_close(features, data["test.roi_features"], rtol=1e-5, atol=1e-5)
    logits = model(batch, boxes)
    torch.testing.assert_close(logits, data["test.logits"], rtol=1e-5, atol=1e-5)
    scores = logits.sigmoid() * torch.cat([data["scores0"], data["scores1"]])
    wanted = torch.cat([data["test.action_scores0"], data["test.action_scores1"]])
    torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("backend")
def test_a_training_step_is_the_official_one(model: ActionDetector, golden: Golden) -> None:
    _, data = golden
    batch = model.batch([data["clip0"], data["clip1"]])
    logits = model(batch, [data["train.boxes0"], data["train.boxes1"]])
    torch.testing.assert_close(logits, data["train.logits"], rtol=1e-5, atol=1e-5)
    loss = detection_loss(logits, torch.cat([data["labels0"], data["labels1"]]))
    torch.testing.assert_close(loss, data["train.loss"], rtol=1e-5, atol=1e-6)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        wanted = data[f"train.grad_norm/{name}"]
        torch.testing.assert_close(parameter.grad.norm(), wanted, rtol=1e-5, atol=1e-6, msg=name)


def _tiny(patch: int) -> ActionDetector:
    torch.manual_seed(0)
    config = MAEConfig(image_size=2 * patch, frames=4, patch_size=patch, width=12, depth=1, heads=2)
    return ActionDetector(config, 3, init_scale=1.0).eval()


def test_boxes_are_in_pixels_whatever_the_patch() -> None:
    generator = torch.Generator().manual_seed(1)
    for patch in (8, 14):
        model = _tiny(patch)
        clip = torch.randint(
            0, 256, (4, 3 * patch, 4 * patch - 3, 3), dtype=torch.uint8, generator=generator
        )
        batch = model.batch([clip])
        assert batch.shape == (1, 4, 3 * patch, 4 * patch, 3)
        grid = (2, 3, 4)
        box = torch.tensor([[2.0 * patch, 1.0 * patch, 2.0 * patch, 1.0 * patch]])
        found = model.features(batch, [box])
        x = model.norm(add(*model.blocks(*model.embed(batch, None, Grid(*grid)))))
        cells = torch.tensor([[2.0, 1.0, 2.0, 1.0]])
        clip_of = torch.zeros(1, dtype=torch.int64)
        wanted = roi_features(x, cells, clip_of, grid=grid, spec=model.rois._replace(scale=1.0))
        torch.testing.assert_close(found, wanted)


def test_uint8_batches_give_what_normalised_ones_give() -> None:
    model = _tiny(8)
    clips = torch.randint(0, 256, (2, 4, 16, 16, 3), dtype=torch.uint8)
    boxes = [torch.tensor([[1.0, 2.0, 9.0, 15.0]]), torch.zeros(0, 4)]
    logits = model(clips, boxes)
    assert logits.shape == (1, 3)
    torch.testing.assert_close(logits, model(model.batch(list(clips)), boxes))


def test_the_loss_sums_over_boxes() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]], dtype=torch.float64)
    target = torch.tensor([[1, 1], [0, 1]], dtype=torch.uint8)
    wanted = (math.log(2.0) + math.log(4 / 3)) / 2 + math.log(2.0)
    assert detection_loss(logits, target).item() == pytest.approx(wanted)
    none = torch.zeros(0, 2, requires_grad=True)
    detection_loss(none, torch.zeros(0, 2)).backward()  # type: ignore[no-untyped-call]
    assert none.grad is not None
    with pytest.raises(ValueError, match="must be"):
        detection_loss(logits, target[:1])


def test_what_does_not_fit_is_refused() -> None:
    model = _tiny(8)
    clips = torch.zeros(2, 4, 16, 16, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="boxes of 1 clips for 2"):
        model(clips, [torch.zeros(1, 4)])
    with pytest.raises(ValueError, match="boxes of clip 1 must be"):
        model(clips, [torch.zeros(1, 4), torch.zeros(4)])
    with pytest.raises(ValueError, match=r"clip 1 is .* as many frames"):
        model.batch([clips[0], clips[1, :2]])
    with pytest.raises(ValueError, match="at least one clip"):
        model.batch([])
    with pytest.raises(ValueError, match="num_classes"):
        ActionDetector(model.config, 0)


def test_a_step_has_the_official_loss(model: ActionDetector, golden: Golden) -> None:
    """Boxes of all clips with the clip of each, divided by the clips of the step, or by boxes."""
    from videomae_fast.recipes import DetectConfig, changed
    from videomae_fast.tasks.detection.acting import Acting

    _, data = golden
    boxes = [data["train.boxes0"], data["train.boxes1"]]
    inputs = {
        "frames": model.batch([data["clip0"], data["clip1"]]),
        "ok": torch.tensor([True, True]),
        "boxes": torch.cat(boxes),
        "clip": torch.tensor([0] * len(boxes[0]) + [1] * len(boxes[1])),
        "labels": torch.cat([data["labels0"], data["labels1"]]).bool(),
        "seeds": torch.tensor([1, 2]),
    }
    for over, weight in (("clips", 2), ("boxes", len(inputs["boxes"]))):
        config = changed(DetectConfig(), {"optim.mean_over": over})
        found = Acting(config, 2.0).loss(model, inputs, scale=1.0)
        torch.testing.assert_close(found.total, data["train.loss"].view(()), rtol=1e-5, atol=0.0)
        assert found.weight.item() == weight
        assert found.failed.item() == 0
