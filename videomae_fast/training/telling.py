"""What a run says while it works: progress, what holds it up, and how videos were read."""

from __future__ import annotations

from typing import Final

from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.training.checkpoint import Log
from videomae_fast.training.metrics import Progress, StepMetrics

STARVED: Final = 0.1
"""Share of the time spent waiting for data from which on the progress says why."""


class Teller:
    """Progress lines and the news of the data pipeline, each of these once."""

    def __init__(self, progress: Progress, feeding: PipelineStats, log: Log) -> None:
        self.progress, self.feeding, self.log = progress, feeding, log
        self._told = ""

    def tell(
        self, last: StepMetrics, speed: dict[str, float], failed_videos: int, *, at_end: bool
    ) -> None:
        """After some steps. last: the last of them; at_end: it is the last of the run."""
        self.log(self.progress.line(last, speed, failed_videos))
        held_up = self.feeding.bottleneck()
        if speed["data_wait"] >= STARVED and held_up.stage != self._told:
            self._told = held_up.stage  # once, until it is another one
            self.log(f"waiting for data: {held_up.advice}")
        for line in self.feeding.news():
            self.log(line)
        how = self.feeding.how_read(again=at_end)
        if how is not None:
            self.log(how)
