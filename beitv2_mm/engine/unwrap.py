"""The model of a runner without its wrapper."""

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from beitv2_mm.registry import MODELS


def unwrapped_model(runner: Runner) -> nn.Module:
    """The model without the wrapper for several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def whole_model(runner: Runner) -> nn.Module:
    """The model with the names and shapes of checkpoints; on the meta device if it is sharded."""
    if not isinstance(runner.model, FullyShardedDataParallel):
        return unwrapped_model(runner)
    with torch.device('meta'):
        return MODELS.build(runner.cfg.model)
