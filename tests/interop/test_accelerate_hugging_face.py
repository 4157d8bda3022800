"""accelerate: the models of transformers, their losses, states and gradients as before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.support.hugging_face_models import needs_transformers, pixel_values, small_hugging_face
from tests.support.official_models import assert_equal, frames, masks_of, weighted
from videomae_fast import accelerate


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@needs_transformers
@pytest.mark.parametrize(
    "settings",
    [{}, {"norm_pix_loss": False}, {"attn_implementation": "sdpa"}, {"use_mean_pooling": False}],
    ids=str,
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_hugging_face_pretraining_is_the_same(settings, checkpointing):
    model = small_hugging_face("pretraining", **settings).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    mask, _ = masks_of("encoder-only").to_bool()
    report = accelerate(model)
    assert_equal(report.compare(lambda m: m(pixel_values(), bool_masked_pos=mask).loss))
    assert_equal(report.compare(lambda m: weighted(m, pixel_values(), mask)))
    assert_equal(report.compare(lambda m: m(pixel_values(), mask, return_dict=False)[0]))
    by_float = model(pixel_values(), mask)
    by_bytes = model(frames(), masks_of("encoder-only"))
    torch.testing.assert_close(by_bytes.loss, by_float.loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_bytes.logits, by_float.logits, rtol=1e-4, atol=1e-5)


@needs_transformers
def test_hugging_face_with_a_decoder_mask():
    """What Hugging Face's model can't do by itself: dual masking, from floats and from bytes."""
    model = small_hugging_face("pretraining")
    masks = masks_of("dual")
    accelerate(model)
    whole = model(pixel_values(), masks_of("encoder-only"))
    found = model(pixel_values(), masks)
    assert found.logits.shape[1] == masks.decoder.shape[1]
    assert found.loss.item() != whole.loss.item()
    torch.testing.assert_close(model(frames(), masks).loss, found.loss, rtol=1e-4, atol=1e-5)


@needs_transformers
@pytest.mark.parametrize("settings", [{}, {"use_mean_pooling": False}], ids=str)
def test_hugging_face_classification_is_the_same(settings):
    model = small_hugging_face("classification", **settings).train()
    labels = torch.tensor([0, 3, 1])
    report = accelerate(model)
    assert_equal(report.compare(lambda m: m(pixel_values(), labels=labels).loss))
    torch.testing.assert_close(model(frames()).logits, model(pixel_values()).logits)


@needs_transformers
@pytest.mark.parametrize("masked", [False, True])
def test_hugging_face_encoder_and_its_hidden_states(masked):
    model = small_hugging_face("base", attn_implementation="eager").eval()
    mask = masks_of("encoder-only").to_bool()[0] if masked else None
    wanted = {"output_hidden_states": True, "output_attentions": True}
    before = model(pixel_values(), mask, **wanted)
    report = accelerate(model)
    after = model(pixel_values(), mask, **wanted)
    torch.testing.assert_close(
        after.last_hidden_state, before.last_hidden_state, rtol=1e-4, atol=1e-4
    )
    for found, expected in (
        (after.hidden_states, before.hidden_states),
        (after.attentions, before.attentions),
    ):
        assert len(found) == len(expected) > 0
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert_equal(
        report.compare(lambda m: m(pixel_values(), mask).last_hidden_state.square().mean())
    )
    late = small_hugging_face("base", attn_implementation="eager").eval()
    late.load_state_dict(model.state_dict())
    accelerate(late)  # before any hook was there
    found = late(pixel_values(), mask, **wanted).attentions
    torch.testing.assert_close(found, before.attentions, rtol=1e-4, atol=1e-5)


@needs_transformers
def test_hugging_face_saves_as_before(tmp_path):
    from transformers import VideoMAEForPreTraining

    model = small_hugging_face("pretraining")
    accelerate(model)
    model.save_pretrained(tmp_path)
    again = VideoMAEForPreTraining.from_pretrained(tmp_path)
    assert again.config.architectures == ["VideoMAEForPreTraining"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)


@needs_transformers
@pytest.mark.parametrize("setting", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_hugging_face_with_dropout_is_left_to_itself_while_it_drops(setting):
    model = small_hugging_face("base", **{setting: 0.1}).train()
    report = accelerate(model)
    assert "encoder.layer.*.attention (2): dropout within" in str(report)
    assert_equal(report.compare(lambda m: weighted_state(m)))
    model.eval()
    assert_equal(report.compare(lambda m: weighted_state(m)))
    assert "kept" not in str(accelerate(small_hugging_face("base", **{setting: 0.1}).eval()))


def weighted_state(model: nn.Module) -> torch.Tensor:
    return weighted(lambda x: model(x).last_hidden_state, pixel_values())
