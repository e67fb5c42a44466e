"""Peak memory in MiB: of a process beyond its start, or of a process and its children together."""

import ctypes
import gc
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

MIB = 2**20


def peak_beyond_start(run: Callable[[], object], device: str) -> float | None:
    """Highest memory during ``run`` less that at its start.

    On an accelerator PyTorch's allocator is asked, else the resident set of the process; None
    where the system has no /proc for that.
    """
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    if not sys.platform.startswith('linux'):
        return None
    gc.collect()
    release_heap()
    before = int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts again from here
    run()
    status = Path('/proc/self/status').read_text()
    return (_kilobytes(status, 'VmHWM') * 1024 - before) / MIB


def release_heap() -> None:
    """Gives the system the memory back that was freed; where the C library can, glibc's."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)


def family_memory() -> float | None:
    """Proportional set size of this process and its children now: shared pages count once.

    None where the system has no /proc for that.
    """
    if not Path('/proc/self/smaps_rollup').exists():
        return None
    total = 0
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        total += _kilobytes(Path(f'/proc/{process}/smaps_rollup').read_text(), 'Pss')
    return total / 1024


def _kilobytes(text: str, key: str) -> int:
    return int(text.split(f'{key}:')[1].split()[0])
