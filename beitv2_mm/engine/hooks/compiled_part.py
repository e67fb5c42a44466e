"""A compiled function that falls back to the function itself where compilation fails."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils._pytree import tree_leaves, tree_map_only

# For one part: a full and a last batch, in training and in evaluation. Compiling takes a minute, so
# images of many sizes run faster uncompiled.
MAX_SIZES = 4
# Modes of torch.compile that record CUDA graphs, which overwrite their outputs in the next call.
CUDA_GRAPH_MODES = ('reduce-overhead', 'max-autotune')


class CompiledPart:
    """A part of a model, compiled for the first `MAX_SIZES` sizes of its arguments.

    PyTorch compiles the forward pass in the first call, but the backward pass only when a gradient
    is computed, where this class could not catch an error. So before the first call with new sizes
    both passes are tried; random states and buffers are restored afterwards.

    Args:
        name: the name of the part in messages.
        function: the function to compile.
        module: the module whose parameters and buffers the function uses.
        strict: raise the error of a failed compilation.
        options: options of torch.compile.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        module: nn.Module,
        strict: bool,
        options: dict[str, Any],
    ) -> None:
        self.name = name
        self.function = function
        self.module = module
        self.strict = strict
        self.compiled: Callable[..., Any] | None = torch.compile(function, **options)
        self.replays = options.get('mode') in CUDA_GRAPH_MODES
        self._seen: set[tuple] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.compiled is None:
            return self.function(*args, **kwargs)
        shapes = [leaf.shape for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        key = (torch.is_grad_enabled(), self.module.training, *shapes)
        if key not in self._seen:
            if len(self._seen) == MAX_SIZES:
                return self.function(*args, **kwargs)
            self._seen.add(key)
            if not self.strict and not self._compiles(args, kwargs):
                self.compiled = None
                return self.function(*args, **kwargs)
        outputs = self.compiled(*args, **kwargs)
        if self.replays and not torch.is_grad_enabled():
            # Without a pending backward pass, the next compiled call of any part may overwrite
            # these outputs, even if they are its arguments.
            outputs = tree_map_only(Tensor, torch.clone, outputs)
        return outputs

    def _compiles(self, args: tuple, kwargs: dict[str, Any]) -> bool:
        try:
            self._try(args, kwargs)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            reason = ' '.join(str(error).split())[:300]
            print_log(
                f'torch.compile failed for {self.name!r}, which runs without it: '
                f'{type(error).__name__}: {reason} (strict=True in the hook raises this error)',
                'current',
                logging.WARNING,
            )
            return False
        return True

    def _try(self, args: tuple, kwargs: dict[str, Any]) -> None:
        """Runs a forward and a backward pass that change nothing and leave only compiled code."""
        assert self.compiled is not None
        buffers = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        device = next(self.module.parameters()).device
        forked = [] if device.type == 'cpu' else [device]
        try:
            with torch.random.fork_rng(forked, device_type=device.type if forked else 'cuda'):
                # The gradient stops at the arguments: it must not reach the parts before this one.
                args, kwargs = tree_map_only(Tensor, _as_leaf, (args, kwargs))
                outputs = _differentiable(self.compiled(*args, **kwargs))
                inputs = [*_differentiable((args, kwargs)), *parameters]
                if outputs and not _is_sharded(self.module):
                    ones = [torch.ones_like(t) for t in outputs]
                    torch.autograd.grad(outputs, inputs, ones, allow_unused=True)
        finally:
            with torch.no_grad():
                for buffer, kept in buffers:
                    buffer.copy_(kept)


def _as_leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _differentiable(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.requires_grad]


def _is_sharded(module: nn.Module) -> bool:
    """Whether a block is sharded, whose weights are gathered only in a real backward pass."""
    return any(isinstance(part, FullyShardedDataParallel) for part in module.modules())
