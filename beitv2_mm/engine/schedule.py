"""Learning-rate schedules: a linear warm-up, then half a cosine or a straight line down."""

import math
from typing import Any

from mmengine.optim.scheduler.param_scheduler import INF, OptimizerType, _ParamScheduler

from beitv2_mm.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(_ParamScheduler):
    """Raises the learning rate from ``start_lr`` to the optimizer's, then lowers it to ``min_lr``.

    Both rates are those of a parameter group at the optimizer's own rate. Groups with another rate,
    as layer-wise decay makes them, keep their ratio to it at every step, as in the reference
    implementation. Where a config leaves ``end`` out, mmengine's Runner fills in the last epoch or
    iteration of the training.

    Args:
        warmup: length of the warm-up in epochs, of which ``convert_to_iter_based=True`` also allows
            parts, or in iterations with ``by_epoch=False``.
        start_lr: rate of the first step.
        min_lr: rate at the end.
        kwargs: ``begin``, ``end``, ``by_epoch`` and other arguments of mmengine's schedulers.

    Raises:
        ValueError: ``start_lr`` or ``min_lr`` is larger than the optimizer's rate.
    """

    def __init__(
        self,
        optimizer: OptimizerType,
        warmup: int,
        start_lr: float = 1e-6,
        min_lr: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        lr = optimizer.defaults['lr']
        for name, value in (('start_lr', start_lr), ('min_lr', min_lr)):
            if value > lr:
                raise ValueError(
                    f"{name}={value:g} is larger than the optimizer's rate, lr={lr:g}: lower "
                    f'param_scheduler.{name} as well.'
                )
        self.warmup = warmup
        self.start_ratio, self.min_ratio = start_lr / lr, min_lr / lr
        super().__init__(optimizer, 'lr', **kwargs)

    @classmethod
    def build_iter_from_epoch(
        cls,
        optimizer: OptimizerType,
        warmup: float,
        *,
        epoch_length: int,
        begin: float = 0,
        end: float = INF,
        by_epoch: bool = True,
        **kwargs: Any,
    ) -> 'WarmupCosineLR':
        """Builds a schedule that steps in every iteration, from settings in epochs."""
        if not by_epoch:
            raise ValueError('convert_to_iter_based=True is for a schedule in epochs.')
        begin, end = (x if x == INF else int(x * epoch_length) for x in (begin, end))
        steps = int(warmup * epoch_length)
        return cls(optimizer, steps, begin=begin, end=end, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        if self.last_step < self.warmup:
            low, share = self.start_ratio, self.last_step / max(1, self.warmup - 1)
        else:
            steps = self.end - self.begin - self.warmup
            low, share = self.min_ratio, self._decay(self.last_step - self.warmup, steps)
        return [base * (low + (1 - low) * share) for base in self.base_values]

    def _decay(self, step: int, steps: int) -> float:
        """Factor of the decay: 1 at step 0, almost 0 at the last step."""
        return (1 + math.cos(math.pi * step / steps)) / 2

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the step and the base rates from a checkpoint; the config decides everything else.

        The first of mmengine's two schedulers in older checkpoints serves as well.
        """
        self._global_step = state_dict['_global_step']
        self.last_step = self._global_step - self.begin
        self.base_values = state_dict['base_values']
        self._last_value = state_dict['_last_value']


@PARAM_SCHEDULERS.register_module()
class WarmupLinearLR(WarmupCosineLR):
    """The same with a linear decay, as segmentation recipes have it: PolyLR with power 1."""

    def _decay(self, step: int, steps: int) -> float:
        return 1 - step / max(1, steps - 1)
