"""The model of a runner, whatever wraps it."""

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def unwrapped_model(runner: Runner) -> nn.Module:
    """The model itself, without the wrapper of several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
