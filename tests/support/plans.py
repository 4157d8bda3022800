"""A tiny plan: pre-training on a labelled set's own clips, two fine-tunings, and a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.labelled import TINY

STAGES = ("own", "four", "two", "two-test")


def value(given: Any) -> str:
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, tuple):
        return "[" + ", ".join(map(str, given)) + "]"
    return f'"{given}"' if isinstance(given, (str, Path)) else str(given)


def write_plan(folder: Path, lists: tuple[Path, Path], **others: Any) -> Path:
    """Writes the plan and its lists.

    others: fields by ``stage__section__field``, or ``common__section__field``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "four.txt").write_text("down\nleft\nright\nup\n")
    (folder / "two.txt").write_text("up\nleft\n")
    for name, file in (("train", lists[0]), ("val", lists[1])):
        lines = [line for line in file.read_text().splitlines() if line[-1] in "13"]
        lines = [f"{line[:-1]}{'0' if line[-1] == '3' else '1'}\n" for line in lines]
        (folder / f"two-{name}.csv").write_text("".join(lines))
    pretrain = {
        "model.decoder_width": 16, "model.decoder_depth": 1, "model.decoder_heads": 1,
        "masks.encoder_ratio": 0.5, "optim.base_lr": 0.05, "schedule.epochs": 2,
        "schedule.warmup_epochs": 0,
    }  # fmt: skip
    tuned = {"mix.mixup": 0.0, "mix.cutmix": 0.0, "schedule.epochs": 2,
             "schedule.warmup_epochs": 0}  # fmt: skip
    for name in ("optim.base_lr", "optim.layer_decay", "model.drop_path", "model.init_scale"):
        tuned[name] = TINY[name]
    tuned |= {key: given for key, given in TINY.items() if key.startswith("augment.")}
    common = {k: v for k, v in TINY.items() if k.startswith(("model.", "run.", "data."))}
    common = {k: v for k, v in common.items() if k not in tuned} | {"optim.videos_per_step": 8}
    stages: dict[str, tuple[str, dict[str, Any]]] = {
        "own": ("pretrain", pretrain),
        "four": ("finetune", {**tuned, "data.classes": folder / "four.txt"}),
        "two": ("finetune", {**tuned, "data.classes": folder / "two.txt"}),
        "two-test": ("test", {"views.segments": 2, "views.crops": 1}),
    }
    named: dict[str, dict[str, Path]] = {
        "own": {},
        "four": {"data.lists": lists[0], "data.validation": lists[1]},
        "two": {"data.lists": folder / "two-train.csv", "data.validation": folder / "two-val.csv"},
        "two-test": {"data.lists": folder / "two-val.csv"},
    }
    for name, given in others.items():
        stage, _, field = name.partition("__")
        fields = common if stage == "common" else stages[stage.replace("_", "-")][1]
        fields[field.replace("__", ".")] = given
    text = "[common]\n" + "".join(f"{k} = {value(v)}\n" for k, v in common.items())
    for name, (task, fields) in stages.items():
        text += f'\n[[stages]]\nname = "{name}"\ntask = "{task}"\n'
        text += "".join(f"set.{key} = {value(given)}\n" for key, given in fields.items())
        text += "".join(f'set.{key} = ["{path}"]\n' for key, path in named[name].items())
        if name == "own":
            text += f'set.data.lists = [{{ path = "{lists[0]}", format = "labels" }}]\n'
    path = folder / "plan.toml"
    path.write_text(text)
    return path
