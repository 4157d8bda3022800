"""What can be shown of the packaging in seconds; .ci/run builds and installs the archives."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.support.processes import printed

ROOT = Path(__file__).resolve().parents[2]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


STEP = """
import torch
from videomae_fast import MAEConfig, MaskedAutoencoder, Masks
from videomae_fast.masks import MaskSpec
config = MAEConfig(image_size=32, frames=4, width=24, depth=1, heads=2, decoder_width=12,
                   decoder_depth=1, decoder_heads=1)
model = MaskedAutoencoder(config)
frames = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
masks = Masks.sample(2, config.grid, MaskSpec(encoder_ratio=0.5))
loss = model(frames, masks).loss
loss.backward()
assert loss.isfinite()
"""


def test_trains_without_triton_and_without_the_compiled_library() -> None:
    code = "import sys; sys.modules['triton'] = None" + STEP
    code += "from videomae_fast.ops import _native; print(_native.library(), _native.why_missing())"
    assert printed(code, VIDEOMAE_FAST_NATIVE="0") == (
        "None the native library is switched off by VIDEOMAE_FAST_NATIVE=0"
    )


def test_import_loads_neither_triton_kernels_nor_a_video_decoder() -> None:
    heavy = "print([m for m in ('torch', 'numpy', 'av', 'PIL', 'matplotlib') if m in sys.modules])"
    assert printed(f"import sys, videomae_fast, videomae_fast.cli; {heavy}") == "[]"
    code = "import sys, videomae_fast.cli.pretrain, videomae_fast.recipes.reference; "
    assert printed(code + heavy) == "[]"
    heavy = "print([m for m in ('av', 'PIL', 'triton', 'torch._dynamo') if m in sys.modules])"
    views = """
import sys, torch, videomae_fast.data
from videomae_fast.ops.augmented_views import AugmentedView, augmented_views
from videomae_fast.ops.crop_resize import crop_resize
clips, size = [torch.zeros(1, 8, 8, 3, dtype=torch.uint8)], (4, 4)
boxes = torch.tensor([[0, 0, 0, 8, 8, 0]])
crop_resize(clips, boxes, size)
crop_resize(clips, boxes, size, out=torch.empty(1, 1, 4, 4, 3, dtype=torch.uint8))
views = [AugmentedView(0, (0, 0, 8, 8))]
augmented_views(clips, views, size)
augmented_views(clips, views, size, out=torch.empty(1, 1, 4, 4, 3))
"""
    assert printed(views + heavy) == "[]", "what each loader process would import"
    # Triton settles on import whether kernels are interpreted, and the compiler imports it.
    code = (
        "import sys; from videomae_fast import MaskedAutoencoder, Masks, VideoClassifier; "
        "print([m for m in ('triton', 'torch._dynamo') if m in sys.modules])"
    )
    assert printed(code) == "[]"


def test_kernels_is_a_part_of_the_package_alone() -> None:
    link = ROOT / "videomae_fast" / "kernels"
    assert link.is_symlink()
    assert link.readlink() == Path("../kernels")
    assert not (ROOT / "kernels" / "__init__.py").exists()
    code = "import videomae_fast.kernels as k, sys; print(k.__name__, 'kernels' in sys.modules)"
    assert printed(code) == "videomae_fast.kernels False"


def test_torch_is_no_build_requirement() -> None:
    names = {Requirement(line).name for line in project()["build-system"]["requires"]}
    assert names == {"scikit-build-core"}


def test_requirements_are_lower_bounds() -> None:
    for line in project()["project"]["dependencies"]:
        operators = {specifier.operator for specifier in Requirement(line).specifier}
        assert operators == {">="}, f"{line}: exact versions belong in constraints/ci.txt"


def test_ci_constraints_are_exact_and_fit_the_metadata() -> None:
    text = (ROOT / "constraints" / "ci.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pinned = {}
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line
        name, version = line.split("==")
        pinned[name] = version
    metadata = project()["project"]
    extras = metadata["optional-dependencies"]
    assert f"{metadata['name']}[docs]" in extras["dev"]
    wanted = {*metadata["dependencies"], *extras["dev"], *extras["docs"]}
    for requirement in map(Requirement, wanted - {f"{metadata['name']}[docs]"}):
        assert requirement.name in pinned, f"constraints/ci.txt lacks {requirement.name}"
        assert requirement.specifier.contains(pinned[requirement.name])


def test_interface_versions_agree() -> None:
    from videomae_fast.ops._native.loader import INTERFACE

    cmake = (ROOT / "csrc" / "CMakeLists.txt").read_text()
    assert f"set(VMF_INTERFACE_VERSION {INTERFACE})" in cmake


@pytest.mark.parametrize(
    "file", sorted((ROOT / "csrc").glob("*.[ch]*")), ids=lambda path: path.name
)
def test_every_native_file_is_built_and_knows_no_python(file: Path) -> None:
    if file.suffix == ".cpp":
        assert file.name in (ROOT / "csrc" / "CMakeLists.txt").read_text()
    assert not re.search(r"#include <(Python|torch|ATen|c10|pybind)", file.read_text())
