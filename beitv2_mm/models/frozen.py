"""Networks that run but are never trained: teachers and finished tokenizers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from beitv2_mm.registry import MODELS


def _build(config: dict[str, Any]) -> nn.Module:
    return MODELS.build(config)


def _build_trained(config: dict[str, Any]) -> nn.Module:
    module = MODELS.build(config)
    module.init_weights()
    return module


class Frozen:
    """Holds a network that its owner uses but does not train.

    The network is built on first use, is always in eval mode and has no gradients. It is not a
    submodule of the owner, so it is in no state dict, optimizer or DDP bucket.

    Args:
        build: builds the network with its weights. To pickle the owner, this function must be
            picklable as well.
    """

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        self._build = build
        self._module: nn.Module | None = None
        self._place: tuple[torch.device, torch.dtype] | None = None

    @classmethod
    def of(cls, config: dict[str, Any]) -> 'Frozen':
        """Holds the network of a config, such as a teacher, which comes with its weights."""
        return cls(partial(_build, config))

    @classmethod
    def trained(cls, config: dict[str, Any]) -> 'Frozen':
        """Holds a network of this package with the weights that its ``init_cfg`` names."""
        return cls(partial(_build_trained, config))

    def like(self, tensor: Tensor) -> nn.Module:
        """Returns the network on the device and in the dtype of the owner's ``tensor``."""
        if self._module is None:
            # Its initialisation must not shift the random numbers of the owner: a resumed run
            # builds the network at another step than an uninterrupted run.
            with torch.random.fork_rng(devices=[]):
                self._module = self._build().requires_grad_(False).eval()
        if torch.compiler.is_compiling():  # a graph cannot move weights; they are in place by now
            return self._module
        place = tensor.device, tensor.dtype
        if place != self._place:  # calling `to` for every weight of base costs 4 ms, moved or not
            self._module, self._place = self._module.to(*place), place
        return self._module.eval() if self._module.training else self._module

    def __getstate__(self) -> dict[str, Any]:
        # Unpickling may map the tensors to another device, so their place is not pickled.
        return vars(self) | {'_place': None}

    def __deepcopy__(self, memo: dict[int, Any]) -> 'Frozen':
        return self  # the network never changes, so copies of the owner (model EMA) share it
