"""Sends a run's numbers to Weights & Biases while it goes on: follow_metrics.py OUTPUT.

`metrics.jsonl` has a line for each step. Steps that are made again after a restart take the place
of their lines; Weights & Biases keeps what it had of them.
"""

import json
import sys
import time
from pathlib import Path

import wandb

output = Path(sys.argv[1])
config = json.loads((output / "config.json").read_text())
run = wandb.init(project="videomae-fast", name=output.name, id=output.name, config=config)
done, path = 0, output / "metrics.jsonl"
while True:
    lines = path.read_text().split("\n")[:-1]  # what follows the last end is still being written
    for line in lines[min(done, len(lines)) :]:
        numbers = json.loads(line)
        run.log(numbers, step=numbers["step"])
    done = len(lines)
    if "--once" in sys.argv:
        break
    time.sleep(30)
