"""Networks that run but are never trained: teachers and finished tokenizers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Frozen:
    """A network outside its owner's modules: built on first use, always in eval mode, without
    gradients, and in no state dict, optimizer or DDP bucket of the owner.

    Args:
        build: makes the network, weights included; a function that can be pickled, if its owner is
            to be.
    """

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        self._build = build
        self._module: nn.Module | None = None
        self._place: tuple[torch.device, torch.dtype] | None = None

    def like(self, tensor: Tensor) -> nn.Module:
        """The network with the device and type of ``tensor``, which is one of its owner's."""
        if self._module is None:
            # Its random start must not shift the owner's random numbers: a resumed run builds it
            # at another moment than an uninterrupted one.
            with torch.random.fork_rng(devices=[]):
                self._module = self._build().requires_grad_(False).eval()
        if torch.compiler.is_compiling():  # a graph cannot move weights: it finds them in place
            return self._module
        place = tensor.device, tensor.dtype
        if place != self._place:  # to ask every weight of base where it is costs 4 ms
            self._module, self._place = self._module.to(*place), place
        return self._module.eval() if self._module.training else self._module

    def __getstate__(self) -> dict:
        # Whoever reads the pickle may map its tensors to another device.
        return vars(self) | {'_place': None}

    def __deepcopy__(self, memo: dict) -> 'Frozen':
        return self  # it never changes, so copies of the owner (model EMA) share it
