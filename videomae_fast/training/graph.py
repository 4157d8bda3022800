"""A step's launches recorded once and replayed: as a CUDA graph.

A replay launches the same kernels on the same addresses, so whatever changes from step to step
lies in tensors that stay where they are: inputs, learning rate, flags. Draws come from generators
that the graph reads the seeds of when it is replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import torch

from videomae_fast.errors import BackendUnavailableError

WARM_UP: Final = 3
"""Runs before a recording, in which libraries set themselves up and kernels are compiled."""

Replay = Callable[[], None]


class Recorder(Protocol):
    """What records a step: a CUDA graph, or, where there is no GPU, a test's tape."""

    def seed(self, number: int, seed: int) -> None:
        """Seeds one of the generators for the next replay."""
        ...

    def draw_from(self, number: int) -> None:
        """While recording: what follows draws from this generator."""
        ...

    def record(self, run: Callable[[], None], clear: Callable[[], None]) -> Replay:
        """Records what `run` launches, after some runs that aren't recorded.

        Args:
            run: launches on the current stream, and reads nothing.
            clear: frees what those runs left.
        """
        ...


class CudaRecorder:
    """Records a CUDA graph, in the thread that replays it.

    Libraries keep plans per thread, so warm-up, recording and replays belong to one thread; what
    other threads do meanwhile (a loader pins memory) does not break a recording, which is thread
    local.

    Args:
        device: a CUDA device.
        generators: how many seeds a replay draws from.
    """

    def __init__(self, device: torch.device, generators: int = 1) -> None:
        self.device = device
        self._own = torch.cuda.default_generators[device.index or 0]
        self._generators = [torch.Generator(device) for _ in range(generators)]
        self.peak = 0.0
        """Bytes that the recorded step needed above what lay on the device before."""

    def seed(self, number: int, seed: int) -> None:
        self._generators[number].manual_seed(seed)

    def draw_from(self, number: int) -> None:
        self._own.graphsafe_set_state(self._generators[number].graphsafe_get_state())

    def record(self, run: Callable[[], None], clear: Callable[[], None]) -> Replay:
        """As :meth:`Recorder.record`.

        Raises:
            BackendUnavailableError: something in `run` can't be recorded.
        """
        before, numbers = self._own.graphsafe_get_state(), self._own.get_state()
        try:
            return self._record(run, clear)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # A recording that broke off still has the state: what draws gets another like it
            before = torch.Generator(self.device).set_state(numbers).graphsafe_get_state()
            raise BackendUnavailableError(
                f"the step can't be recorded as a CUDA graph: {str(error).strip().splitlines()[0]}"
                "; use step_mode eager"
            ) from error
        finally:
            self._own.graphsafe_set_state(before)

    def _record(self, run: Callable[[], None], clear: Callable[[], None]) -> Replay:
        device = self.device
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream(device).wait_stream(side)
        clear()
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        # On the stream of the warm-up, where autograd put the nodes that add up gradients
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            run()
        self.peak = float(torch.cuda.max_memory_allocated(device) - before)
        replay: Replay = graph.replay
        return replay
