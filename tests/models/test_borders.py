"""What a wrapper of modules relies on: FSDP2, compile block by block, initialisation on meta."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils import _pytree as pytree

from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, VideoClassifier
from videomae_fast.masks import MaskSpec
from videomae_fast.models.detector import ActionDetector
from videomae_fast.models.drop_path import branch_keys
from videomae_fast.models.masked_autoencoder import MAEOutput
from videomae_fast.models.positions import remake_tables
from videomae_fast.models.transformer import Block, set_sharded

CONFIG = MAEConfig(
    image_size=32, frames=4, width=32, depth=2, heads=2, decoder_width=16, decoder_depth=2,
    decoder_heads=1, layer_scale=0.1,
)  # fmt: skip
BOXES = [torch.tensor([[1.0, 2.0, 20.0, 30.0]])] * 3
KINDS: dict[str, Callable[..., nn.Module]] = {
    "pre-training": lambda **options: MaskedAutoencoder(CONFIG, **options),
    "classifier": lambda **options: VideoClassifier(CONFIG, 5, init_scale=1.0, **options),
    "detector": lambda **options: ActionDetector(CONFIG, 5, init_scale=1.0, **options),
}


def called(model: nn.Module, seeds: Tensor | None = None, rows: slice = slice(None)) -> Tensor:
    """The output of some of three clips, one number for each value."""
    generator = torch.Generator().manual_seed(3)
    shape = (3, 4, 32, 32, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)[rows]
    if isinstance(model, MaskedAutoencoder):
        masks = Masks.from_seeds(torch.arange(3)[rows], CONFIG.grid, MaskSpec(encoder_ratio=0.5))
        out = model(frames, masks, return_prediction=True, clip_seeds=seeds).prediction
    elif isinstance(model, ActionDetector):
        out = model(frames, BOXES[rows], seeds)
    else:
        out = model(frames, seeds)
    assert isinstance(out, Tensor)
    return out


def leaving(model: nn.Module) -> list[str]:
    """Parameters whose memory a block's output lies in."""
    owners = {p.untyped_storage().data_ptr(): name for name, p in model.named_parameters()}
    found: list[str] = []

    def look(module: nn.Module, args: Any, output: Any) -> None:
        leaves = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
        found.extend(
            owners[leaf.untyped_storage().data_ptr()]
            for leaf in leaves
            if leaf.untyped_storage().data_ptr() in owners
        )

    hooks = [m.register_forward_hook(look) for m in model.modules() if isinstance(m, Block)]
    called(model)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_no_parameter_leaves_a_block_that_is_sharded(kind: str) -> None:
    model = KINDS[kind]()
    before = leaving(model)
    assert any(name.endswith("mlp.fc2.bias") for name in before), "the check sees what leaves"
    assert any(name.endswith("gamma_2") for name in before)
    expected = called(model)
    set_sharded(model)
    assert leaving(model) == []
    assert torch.equal(called(model), expected)


def test_copies_pass_gradients_on() -> None:
    gradients = []
    for sharded in (False, True):
        torch.manual_seed(0)
        model = KINDS["pre-training"]()
        set_sharded(model, sharded)
        called(model).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_the_output_is_a_node_of_trees() -> None:
    """Wrappers look for tensors there; what they don't find has no hook for its gradient."""
    output = MAEOutput(*(torch.tensor(float(i)) for i in range(3)), root=torch.zeros(0))
    leaves, structure = pytree.tree_flatten(output)
    assert [leaf is each for leaf, each in zip(leaves, vars(output).values(), strict=True)]
    more = [None if leaf is None else leaf + 1 for leaf in leaves]
    again = pytree.tree_unflatten(more, structure)
    assert isinstance(again, MAEOutput)
    assert (float(again.loss), float(again.loss_weight), again.prediction) == (1, 3, None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_was_made_on_meta_is_the_same(kind: str) -> None:
    torch.manual_seed(0)
    model = KINDS[kind]()
    with torch.device("meta"):
        other = KINDS[kind]()
    assert {t.device.type for t in (*other.parameters(), *other.buffers())} == {"meta"}
    other.to_empty(device="cpu")
    for buffer in other.buffers():
        buffer.fill_(float("nan"))
    other.load_state_dict(model.state_dict())
    assert called(other).isnan().any(), "the tables are in no state dict"
    remake_tables(other)
    assert torch.equal(called(other), called(model))


def test_a_buffer_that_nobody_can_make_again_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    model[0].register_buffer("scale", torch.ones(1), persistent=False)
    with pytest.raises(RuntimeError, match=r"0: scale is in no state dict, and Linear has no way"):
        remake_tables(model)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_drop_path_is_the_same_for_a_clip_in_any_batch(kind: str, checkpointing: bool) -> None:
    model = KINDS[kind](drop_path=0.9, activation_checkpointing=checkpointing)
    seeds = torch.tensor([11, 5 << 40, -3])
    whole = called(model, seeds)
    apart = [called(model, seeds[i : i + 1], slice(i, i + 1)) for i in range(3)]
    torch.testing.assert_close(whole, torch.cat(apart))
    assert not torch.equal(whole, called(model, seeds + 1))
    assert torch.equal(called(model.eval(), seeds), called(model))


def test_drop_path_follows_its_rate_and_no_two_branches_go_together() -> None:
    seeds = torch.randint(2**62, (20_000,), generator=torch.Generator().manual_seed(0))
    keys = branch_keys(seeds, 0, 3)
    assert torch.equal(branch_keys(seeds, 1, 2), keys[1:]), "by a block's number"
    model = VideoClassifier(CONFIG, 2, drop_path=0.4)
    factors = [each for each in model.blocks.factors(seeds, torch.float32) if each is not None]
    assert torch.equal(factors[0], torch.ones(2, len(seeds)))
    torch.testing.assert_close(factors[1].unique(), torch.tensor([0.0, 1 / 0.6]))
    dropped = (keys < 0.4 * 2**32).flatten(0, 1).double()
    assert dropped.mean(1).numpy() == pytest.approx(0.4, abs=0.02)
    apart = torch.corrcoef(dropped) - torch.eye(6, dtype=torch.float64)
    assert float(apart.abs().max()) < 0.03


@pytest.fixture
def compiler() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("compiler")
def test_blocks_of_any_rate_share_their_graphs() -> None:
    """A rate that is a guard would be a graph for each block, and past eight an error."""
    config = MAEConfig(**{**CONFIG.to_dict(), "depth": 12})
    model = MaskedAutoencoder(config, drop_path=0.2)
    for module in model.modules():
        if isinstance(module, Block):
            module.compile(fullgraph=True, backend="eager")
    called(model, torch.arange(3))
    assert counters["stats"]["unique_graphs"] <= 5
