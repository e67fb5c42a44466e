"""Layer-wise learning-rate decay for every model that has our backbone, whichever its host."""

from collections.abc import Callable
from functools import partial
from typing import Any

from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn

from beitv2_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """mmpretrain's constructor, also for models that do not know the depth of their parameters.

    The backbone of detectors and other such models knows the depth of its own; necks and heads
    learn at the full rate.
    """

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        get_layer_depth: Callable[[str], tuple[int, int]] | None = None,
        **kwargs: Any,
    ) -> None:
        """Appends a group for every parameter of ``module``; see mmpretrain's."""
        if self.base_wd is None:
            raise ValueError(
                'Layer-wise learning-rate decay needs a weight decay: set '
                'optim_wrapper.optimizer.weight_decay, to 0 for none.'
            )
        if get_layer_depth is None and not hasattr(module, 'get_layer_depth'):
            depth = getattr(getattr(module, 'backbone', None), 'get_layer_depth', None)
            if depth is None:
                raise TypeError(
                    f'Layer-wise learning-rate decay needs a model whose backbone is a '
                    f'BEiTV2Backbone, and {type(module).__name__} has none: remove '
                    'optim_wrapper.constructor from the config.'
                )
            get_layer_depth = partial(depth, prefix='backbone.')
        super().add_params(params, module, prefix, get_layer_depth, **kwargs)
