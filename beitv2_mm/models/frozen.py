"""Networks that are asked but never trained: teachers and finished tokenizers."""

from collections.abc import Callable

import torch
from torch import nn


class Frozen:
    """A network outside its owner's modules: built on first use, always in eval mode, without
    gradients, and in no state dict, optimizer or DDP bucket of the owner.

    Args:
        build: makes the network, weights included.
    """

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        self._build = build
        self._module: nn.Module | None = None
        self._device: torch.device | None = None

    def on(self, device: torch.device) -> nn.Module:
        """The network, on ``device``."""
        if self._module is None:
            # Its random start must not shift the owner's random numbers: a resumed run builds it
            # at another moment than an uninterrupted one.
            with torch.random.fork_rng(devices=[]):
                self._module = self._build().requires_grad_(False).eval()
        if torch.compiler.is_compiling():  # a graph cannot move weights: it finds them in place
            return self._module
        if device != self._device:  # it costs 4 ms of base to find every weight there
            self._module, self._device = self._module.to(device), device
        return self._module.eval() if self._module.training else self._module

    def __deepcopy__(self, memo: dict) -> 'Frozen':
        return self  # it never changes, so copies of the owner (model EMA) share it
