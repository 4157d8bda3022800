"""Weights of an accelerated model in one that is not accelerated, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.checkouts.pairs import TOLERANCE
from benchmarks.checkouts.rows import Row
from benchmarks.contenders.checkout import Checkout
from videomae_fast import MAEConfig, accelerate
from videomae_fast.errors import AccelerationError

CONFIG = MAEConfig(
    image_size=32, width=64, depth=2, heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2
)


def official(checkout: Path, folder: Path) -> Row:
    """A step of training accelerated, saved, loaded strictly into a plain model."""
    found = Checkout.at(checkout)
    name = f"{found.version}: save accelerated, load into a model that is not"
    tokens = CONFIG.grid.tokens
    clips = torch.randn(2, 3, CONFIG.frames, 32, 32, generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(tokens) % 4 > 0).expand(2, tokens)

    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return found.model(CONFIG, checkpointing=False)

    def write(model: nn.Module, path: Path) -> None:
        torch.save({"model": model.state_dict()}, path)

    def read(path: Path, model: nn.Module) -> nn.Module:
        model.load_state_dict(torch.load(path, weights_only=True)["model"], strict=True)
        return model

    folder.mkdir(parents=True, exist_ok=True)
    return _row(
        name, build, lambda m: m(clips, mask), write, read, folder / f"{found.version}-saved.pth"
    )


def hugging_face(folder: Path) -> Row:
    """The same with ``save_pretrained`` and ``from_pretrained``."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    clips = torch.randn(2, 16, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(32) % 4 > 0).expand(2, 32)

    def build(seed: int) -> Any:
        torch.manual_seed(seed)
        return VideoMAEForPreTraining(
            VideoMAEConfig(
                image_size=32, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=64, decoder_hidden_size=32, decoder_num_hidden_layers=1,
                decoder_num_attention_heads=2, decoder_intermediate_size=32,
            )
        )  # fmt: skip

    def read(path: Path, model: nn.Module) -> Any:
        return VideoMAEForPreTraining.from_pretrained(path)

    return _row(
        "Hugging Face: save accelerated, load into a model that is not", build,
        lambda m: m(clips, mask).logits, lambda m, path: m.save_pretrained(path), read,
        folder / "hugging-face-saved",
    )  # fmt: skip


def _row(
    name: str,
    build: Callable[[int], Any],
    call: Callable[[Any], Tensor],
    write: Callable[[Any, Path], None],
    read: Callable[[Path, Any], Any],
    path: Path,
) -> Row:
    model = build(0)
    try:
        accelerate(model)
    except AccelerationError as error:
        return Row(name, "refused", str(error))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.autograd.backward(call(model).square().mean())
    optimizer.step()
    write(model, path)
    plain = read(path, build(1))
    kept = plain.state_dict()
    state = model.state_dict()
    if list(kept) != list(state) or any(not torch.equal(kept[n], v) for n, v in state.items()):
        return Row(name, "FAILED", "other keys or values after loading")
    model.eval()
    plain.eval()
    with torch.no_grad():
        expected, found = call(plain), call(model)
        model.load_state_dict(build(2).state_dict(), strict=True)
        back = float((call(model) - call(build(2).eval())).norm() / expected.norm())
    apart = float((found - expected).norm() / expected.norm())
    numbers = {"outputs apart by": apart, "after loading back": back}
    equal = all(value <= TOLERANCE for value in numbers.values())
    return Row(name, "equal" if equal else "FAILED", "", numbers)
