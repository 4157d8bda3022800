"""torch.compile with more than one shape in a process, and torch.export.

How many graphs there are, and with which sizes, is settled before a backend sees them: most are run
as they are. What AOTAutograd and inductor make of sizes that are symbols has a case each.
"""

from __future__ import annotations

import io

import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.export import Dim

from tests.support.compiling import traced
from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, MaskSpec, VideoClassifier
from videomae_fast.masks import Grid

CONFIG = MAEConfig(
    image_size=32, frames=8, width=32, depth=1, heads=2, decoder_width=16, decoder_depth=1,
    decoder_heads=1,
)  # fmt: skip
HALF, MORE = MaskSpec(encoder_ratio=0.5), MaskSpec(encoder_ratio=0.75)
V1, RANDOM = (
    MaskSpec(encoder_ratio=0.5, decoder="none"),
    MaskSpec(encoder="random", encoder_ratio=0.5, decoder="random"),  # with weights
)
# (clips, frames, height, width), the masks, and how many graphs there are from here on
Step = tuple[tuple[int, int, int, int], MaskSpec, int]
BATCHES: list[Step] = [
    ((2, 8, 32, 32), HALF, 1),
    ((2, 8, 32, 32), HALF, 1),
    ((3, 8, 32, 32), HALF, 2),
    ((5, 8, 32, 32), HALF, 2),
    ((4, 8, 32, 32), HALF, 2),
]
SIZES: list[Step] = [
    ((2, 8, 32, 32), HALF, 1),
    ((2, 8, 48, 48), HALF, 2),
    ((2, 8, 64, 64), HALF, 2),
    ((2, 8, 96, 48), HALF, 2),
    ((2, 8, 32, 32), HALF, 2),
]
LENGTHS: list[Step] = [
    *SIZES,
    ((2, 16, 48, 48), HALF, 3),
    ((2, 24, 64, 32), HALF, 3),
    ((2, 8, 32, 32), HALF, 3),
]
RATIOS: list[Step] = [
    ((2, 8, 64, 64), MORE, 1),
    ((2, 8, 64, 64), HALF, 2),
    ((2, 8, 64, 64), V1, 2),
    ((2, 8, 64, 64), MaskSpec(encoder_ratio=0.9), 2),
    ((2, 8, 64, 64), RANDOM, 3),
]


@pytest.fixture(autouse=True)
def _compiler():
    """A fresh one: another test's shapes would make sizes symbolic."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def clips(shape: tuple[int, int, int, int], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


def inputs(shape: tuple[int, int, int, int], spec: MaskSpec, seed: int) -> tuple[Tensor, Masks]:
    generator = torch.Generator().manual_seed(seed)
    grid = Grid.of(shape[1], shape[2:], CONFIG.tubelet_size, CONFIG.patch_size)
    return clips(shape, seed), Masks.sample(shape[0], grid, spec, generator=generator)


def model_of(kind: type[nn.Module], **settings) -> nn.Module:
    torch.manual_seed(0)
    if kind is VideoClassifier:
        return VideoClassifier(CONFIG, 5, init_scale=1.0, **settings)
    return MaskedAutoencoder(CONFIG, **settings)


def values(model: nn.Module, call, frames: Tensor, masks: Masks) -> list[Tensor]:
    """What the model gives, and the gradient of every parameter."""
    model.zero_grad()
    torch.manual_seed(1)  # drop path draws
    classifies = isinstance(model, VideoClassifier)
    out = call(frames) if classifies else call(frames, masks).loss
    if not out.requires_grad:
        return [out]
    (out.square().mean() if classifies else out).backward()
    return [out.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def assert_same(model: nn.Module, compiled, frames: Tensor, masks: Masks) -> None:
    expected = values(model, model, frames, masks)
    for found, wanted in zip(values(model, compiled, frames, masks), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "steps", "backend"),
    [
        pytest.param(MaskedAutoencoder, BATCHES, traced, id="batches"),
        pytest.param(MaskedAutoencoder, SIZES, traced, id="sizes"),
        pytest.param(MaskedAutoencoder, RATIOS, "eager", id="ratios"),
        pytest.param(VideoClassifier, BATCHES, traced, id="classifier-batches"),
        pytest.param(VideoClassifier, LENGTHS, "eager", id="classifier-sizes"),
    ],
)
def test_one_after_the_other(kind, steps, backend):
    """Other batches, sizes and masks in one process: as in eager, and in few graphs."""
    model = model_of(kind, drop_path=0.3)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for seed, (shape, spec, wanted) in enumerate(steps):
        assert_same(model, compiled, *inputs(shape, spec, seed))
        assert graphs() == wanted, f"{shape} {spec}"


@pytest.mark.parametrize("kind", [MaskedAutoencoder, VideoClassifier])
def test_dynamic_from_the_beginning(kind):
    """One graph for all, but for the model's own grid, whose positions are kept."""
    model = model_of(kind).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=True)
    # No two sizes of the first are equal: torch takes these for one
    for seed, (batch, frames, side) in enumerate([(2, 8, 80), (5, 16, 48), (3, 8, 64)]):
        assert_same(model, compiled, *inputs((batch, frames, side, side), HALF, seed))
    assert graphs() == 1
    if kind is VideoClassifier:  # a graph that takes long, and shows the same of both
        assert_same(model, compiled, *inputs((3, 8, 32, 32), HALF, 9))
        assert graphs() == 2


def test_a_marked_batch():
    model = model_of(MaskedAutoencoder, activation_checkpointing=True)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for seed, batch in enumerate([2, 3, 7]):
        frames, masks = inputs((batch, 8, 32, 32), HALF, seed)
        assert masks.loss_weight is None
        for tensor in (frames, masks.visible, masks.decoder, masks.loss_slot, masks.loss_index):
            torch._dynamo.mark_dynamic(tensor, 0)
        assert_same(model, compiled, frames, masks)
    assert graphs() == 1


def test_without_gradients():
    """And with positions that are learned."""
    torch.manual_seed(0)
    config = MAEConfig.from_dict({**CONFIG.to_dict(), "learned_positions": True})
    model = MaskedAutoencoder(config, drop_path=0.3).eval()
    compiled = torch.compile(model, fullgraph=True, backend=traced)
    with torch.no_grad():
        for seed, (batch, spec) in enumerate([(2, HALF), (3, HALF), (5, HALF), (4, HALF)]):
            assert_same(model, compiled, *inputs((batch, 8, 32, 32), spec, seed))
    assert graphs() == 2


def test_masks_of_another_grid_are_told():
    model = model_of(MaskedAutoencoder)
    compiled = torch.compile(model, backend="eager")  # which graph it makes is not the point
    frames, masks = inputs((2, 8, 32, 32), HALF, 0)
    compiled(frames, masks)
    with pytest.raises(ValueError, match="don't fit 2 clips of Grid"):
        compiled(clips((2, 8, 48, 48)), masks)
    with pytest.raises(ValueError, match=r"2 masks of Grid.* don't fit 3 clips"):
        compiled(clips((3, 8, 32, 32)), masks)


def test_grids_differ_in_every_field():
    one = Grid(2, 3, 4)
    assert not one != Grid(2, 3, 4)  # noqa: SIM202
    assert all(one != other for other in (Grid(1, 3, 4), Grid(2, 1, 4), Grid(2, 3, 1), (2, 3, 4)))


@torch._inductor.config.patch({"cpp.simdlen": 1})  # compiled in a third of the time
def test_inductor_takes_another_size():
    """By one graph, in which one size is a symbol."""
    model = model_of(VideoClassifier).eval()
    compiled = torch.compile(model, fullgraph=True, backend="inductor")
    with torch.no_grad():
        for seed, height in enumerate([48, 64, 112]):
            frames, masks = inputs((2, 8, height, 32), HALF, seed)
            torch._dynamo.mark_dynamic(frames, 2)
            assert_same(model, compiled, frames, masks)
    assert graphs() == 1


def test_export_of_the_classifier():
    """Saved and loaded, with any number of clips."""
    model = model_of(VideoClassifier).eval()
    batch = ({0: Dim.DYNAMIC},)
    program = torch.export.export(model, (clips((2, 8, 32, 32)),), dynamic_shapes=batch)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for count in (1, 2, 5):
        frames = clips((count, 8, 32, 32), count)
        torch.testing.assert_close(loaded(frames), model(frames))


def test_export_with_sizes():
    model = model_of(VideoClassifier).eval()
    sizes = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    program = torch.export.export(model, (clips((2, 12, 48, 64)),), dynamic_shapes=sizes)
    for shape in ((2, 12, 48, 64), (3, 8, 64, 48), (5, 8, 80, 32)):
        frames = clips(shape)
        torch.testing.assert_close(program.module()(frames), model(frames))


class VisibleTokens(nn.Module):
    """A pre-trained encoder with the clip's size fixed, as one would deploy it."""

    def __init__(self, model: MaskedAutoencoder) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, frames: Tensor, visible: Tensor) -> Tensor:
        return self.encoder(frames, visible, CONFIG.grid)


def test_export_of_the_encoder():
    """Of any number of clips and visible tokens."""
    model = VisibleTokens(model_of(MaskedAutoencoder)).eval()
    example, masks = inputs((2, 8, 32, 32), HALF, 0)
    free = ({0: Dim.AUTO}, {0: Dim.AUTO, 1: Dim.AUTO})
    program = torch.export.export(model, (example, masks.visible), dynamic_shapes=free)
    for count, spec in ((1, HALF), (3, MORE)):
        frames, masks = inputs((count, 8, 32, 32), spec, count)
        found = program.module()(frames, masks.visible)
        torch.testing.assert_close(found, model(frames, masks.visible))
