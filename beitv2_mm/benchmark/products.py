"""The matrix products of a run, and the time that they take with nothing in between."""

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

import beitv2_mm.layers  # noqa: F401  registers the search for codes

aten = torch.ops.aten
SEARCH = torch.ops.beitv2_mm.nearest_codes.default
PRODUCTS = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.convolution.default,
    aten.convolution_backward.default,
}


def _attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    return sdpa_flop_count(query, key, value)


# PyTorch does not count the operations of the attention kernel for CPUs.
NOT_COUNTED = {aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def now(device: str) -> float:
    """The time in seconds, once the device has finished its work."""
    if device != 'cpu':
        torch.cuda.synchronize()
    return time.perf_counter()


class Operand(NamedTuple):
    """The properties of a tensor that the time of a product depends on."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


Call: TypeAlias = tuple[Callable, tuple]  # the product, its operands and other arguments


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Call] = Counter()

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func in PRODUCTS:
            self.calls[func, tuple(map(_describe, args))] += 1
        if func is SEARCH:
            samples, codebook = args
            self.calls[aten.mm.default, (_describe(samples), _describe(codebook.t()))] += 1
        return func(*args, **(kwargs or {}))


def _describe(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return Operand(tuple(argument.shape), argument.stride(), argument.dtype)
    return tuple(argument) if isinstance(argument, list) else argument


class Products:
    """The matrix products of a run, with the shapes and strides of their operands.

    Args:
        run: called once; the attribute ``result`` is its return value.
        device: the device that it runs on.
    """

    def __init__(self, run: Callable[[], Any], device: str) -> None:
        missing = {op: flops for op, flops in NOT_COUNTED.items() if op not in flop_registry}
        recorder = _Recorder()
        with recorder, FlopCounterMode(display=False, custom_mapping=missing) as counter:
            self.result = run()
        self.device = device
        self.calls = recorder.calls
        self.flops = counter.get_total_flops()
        counts = counter.get_flop_counts().get('Global', {})
        ops = PRODUCTS | {SEARCH}
        recorded = sum(counts.get(op.overloadpacket, 0) for op in ops)
        # Fused attention is not run again; its operations count at the rate of the others.
        self.all_by_recorded = self.flops / recorded if recorded else 0.0
        self._pool: dict[tuple[int, torch.dtype], Tensor] = {}

    @torch.no_grad()
    def seconds(self) -> float:
        """Time of all floating-point operations of the run at the rate of its products.

        Only a quarter of the products is run to find the rate. A run without products takes 0.
        """
        total = 0.0
        for (product, arguments), count in self.calls.items():
            inputs = [self._argument(*item) for item in enumerate(arguments)]
            repeats = math.ceil(count / 4)
            start = now(self.device)
            for _ in range(repeats):
                product(*inputs)
            total += (now(self.device) - start) / repeats * count
        return total * self.all_by_recorded

    def _argument(self, position: int, argument: Any) -> Any:
        """Random numbers in place of an operand; all products share their memory."""
        if not isinstance(argument, Operand):
            return argument
        size = 1 + sum((n - 1) * s for n, s in zip(argument.shape, argument.stride, strict=True))
        key = position, argument.dtype
        if key not in self._pool or len(self._pool[key]) < size:
            self._pool[key] = torch.randn(size, device=self.device).to(argument.dtype)
        return self._pool[key].as_strided(argument.shape, argument.stride)
