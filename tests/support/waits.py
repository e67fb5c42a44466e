"""Counts how often the host waits for the pretended device: each wait is idle time of a GPU."""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

NAME = 'pretend'
aten = torch.ops.aten
# For these, the host waits until the device has finished: it needs a value or a size from there.
WAITING = {
    aten._local_scalar_dense.default: 'scalar',
    aten.nonzero.default: 'nonzero',
    aten.masked_select.default: 'masked_select',
    aten._unique2.default: 'unique',
    aten.unique_consecutive.default: 'unique',
    aten.bincount.default: 'bincount',
    aten.equal.default: 'equal',
    aten.repeat_interleave.Tensor: 'repeat_interleave',
}
# Whoever makes the host wait is not in these folders.
NOT_NAMED = (str(Path(torch.__file__).parent), str(Path(__file__).parent), contextlib.__file__)
counters: list[Counter] = []


@contextmanager
def counted_syncs() -> Iterator[Counter]:
    """Counts how often the host waits for the pretended device, by kind and line of code.

    Kinds: the values of `WAITING`, 'mask' (indexing by a mask needs the number of its elements) and
    'to host' (a blocking copy to CPU memory). A key reads 'scalar at mmengine/hooks/x.py:93'.
    """
    counter: Counter = Counter()
    counters.append(counter)
    try:
        yield counter
    finally:
        counters.remove(counter)


def is_device(value: Any) -> bool:
    return torch.device(value).type == NAME


def reason(func: Any, args: tuple, kwargs: dict, ours: bool) -> str | None:
    """The kind of a wait, see `counted_syncs`; whether a tensor of ``args`` is on the device."""
    if func is aten._to_copy.default and kwargs.get('device') is not None:
        source, target = is_device(args[0].device), is_device(kwargs['device'])
        return _copy_between(source, target, kwargs.get('non_blocking'))
    if func is aten.copy_.default:
        target, source = (is_device(t.device) for t in args[:2])
        return _copy_between(source, target, args[2] if len(args) > 2 else False)
    if not ours:
        return None
    if func in (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default):
        masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
        return 'mask' if masks else None
    return WAITING.get(func)


def _copy_between(source: bool, target: bool, non_blocking: bool | None) -> str | None:
    """The kind of a copy that blocks; whether its ends are on the device."""
    if source == target or non_blocking:
        return None
    return 'to host' if source else 'to device'


def count(kind: str | None) -> None:
    if kind and counters:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith(NOT_NAMED):
            frame = frame.f_back
        assert frame is not None
        place = '/'.join(frame.f_code.co_filename.split('/')[-3:])
        for counter in counters:
            counter[f'{kind} at {place}:{frame.f_lineno}'] += 1


class Waits(Hook):
    """Counts the waits from the start of each iteration to the start of the next."""

    priority = 0

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.seen: list[Counter] = []

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        self.seen.append(self.counter.copy())

    @property
    def steps(self) -> list[Counter]:
        return [after - before for before, after in zip(self.seen, self.seen[1:], strict=False)]
