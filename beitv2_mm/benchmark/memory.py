"""Memory in MiB: the peak of PyTorch's allocator, or that of a process and its children."""

import multiprocessing
import os
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

MIB = 2**20


def peak_allocated(run: Callable[[], object], device: str) -> float:
    """The most that PyTorch's allocator holds during ``run`` beyond what it holds at its start."""
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    return max(allocated_on_cpu(run), default=0) / MIB


def allocated_on_cpu(run: Callable[[], object]) -> list[int]:
    """Bytes that PyTorch's allocator holds, beyond what it holds at the start, after each
    allocation and release of ``run``."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as log:
        run()
    assert log.profiler is not None and log.profiler.kineto_results is not None
    events = [e for e in log.profiler.kineto_results.events() if e.name() == '[memory]']
    events.sort(key=lambda event: event.start_ns())
    return list(accumulate(event.nbytes() for event in events))


def family_memory() -> float | None:
    """Proportional set size of this process and its children: shared pages count once.

    None where the system has no /proc for that.
    """
    if not Path('/proc/self/smaps_rollup').exists():
        return None
    processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    texts = [Path(f'/proc/{process}/smaps_rollup').read_text() for process in processes]
    return sum(int(text.split('Pss:')[1].split()[0]) for text in texts) / 1024  # from KiB
