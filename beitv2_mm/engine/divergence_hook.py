"""Skips the steps that NaN or Inf would spoil, counts them, and stops a run that has diverged."""

import json
from collections import deque
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from beitv2_mm.engine.unwrap import unwrapped_model
from beitv2_mm.errors import DivergenceError
from beitv2_mm.files import write_atomic
from beitv2_mm.registry import HOOKS


@HOOKS.register_module()
class DivergenceGuardHook(Hook):
    """Leaves out the steps whose losses or gradients are NaN or Inf.

    All ranks skip together. A step that a GradScaler leaves out, as it does now and then to
    find its scale, counts too. Logs ``grad_norm`` (before clipping), ``skipped_steps`` (of the
    whole run) and, in mixed precision, ``loss_scale``.

    After ``patience`` skipped steps in a row, ``divergence_rank<r>.json`` in the work directory
    gets iterations, image files, losses, gradient norm and scale of those steps, and training ends
    with :class:`DivergenceError`. Needs an OptimWrapper (with one optimizer): DeepSpeed has
    a guard of its own.
    """

    def __init__(self, patience: int = 20) -> None:
        if patience < 1:
            raise ValueError(f'patience is {patience}; expected a number of steps from 1 on.')
        self.patience = patience
        self._skipped: deque[dict[str, Any]] = deque(maxlen=patience)
        self._files: list[str] = []
        self._losses: dict[str, Tensor] = {}
        self._bad_losses: Tensor | None = None
        self._norm: float | None = None
        self._stepped = False

    def before_train(self, runner: Runner) -> None:
        wrapper = runner.optim_wrapper
        self._active = isinstance(wrapper, OptimWrapper) and not isinstance(
            wrapper, OptimWrapperDict
        )
        if not self._active:
            runner.logger.warning(
                f'NaN and Inf are not watched for with {type(wrapper).__name__}; an OptimWrapper '
                'is needed.'
            )
            return
        self._sharded = isinstance(runner.model, FullyShardedDataParallel)
        self._handles = [
            unwrapped_model(runner).register_forward_hook(self._after_forward),
            wrapper.optimizer.register_step_pre_hook(self._before_step),
        ]

    def after_train(self, runner: Runner) -> None:
        if self._active:
            for handle in self._handles:
                handle.remove()

    def _after_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        """Notes the losses; nothing waits for the device here."""
        if not (module.training and torch.is_grad_enabled() and isinstance(output, dict)):
            return
        losses = {
            name: torch.stack(
                [*map(torch.mean, value)] if isinstance(value, list) else [value.mean()]
            )
            for name, value in output.items()
            if 'loss' in name
        }
        self._losses = {name: value.detach().float().sum() for name, value in losses.items()}
        if self._losses:
            bad = ~torch.stack([*self._losses.values()]).isfinite().all()
            self._bad_losses = bad if self._bad_losses is None else self._bad_losses | bad

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Takes the gradients away where they must not be used: a step without any does nothing."""
        parameters = [p for group in optimizer.param_groups for p in group['params']]
        grads = [p.grad for p in parameters if p.grad is not None]
        if not grads:
            return
        squares = torch.stack([norm.float() for norm in torch._foreach_norm(grads)]).square().sum()
        bad = squares.new_zeros(()) if self._bad_losses is None else self._bad_losses.float()
        both = torch.stack([squares, bad])
        all_reduce(both)
        total, bad_losses = both.tolist()
        scale = getattr(optimizer, 'grad_scale', None)  # a fused optimizer divides by it later
        norm = (total if self._sharded else total / get_world_size()) ** 0.5
        self._norm = norm if scale is None else norm / float(scale)
        self._stepped = bad_losses == 0 and total < float('inf')
        if not self._stepped:
            for parameter in parameters:
                parameter.grad = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if not self._active:
            return
        self._files += _files(data_batch)
        if not runner.optim_wrapper.should_update():
            return
        hub = runner.message_hub
        skipped = hub.runtime_info.get('skipped_steps', 0)
        in_a_row = 0 if self._stepped else hub.runtime_info.get('skipped_in_a_row', 0) + 1
        skipped += not self._stepped
        hub.update_info('skipped_steps', skipped)
        hub.update_info('skipped_in_a_row', in_a_row)
        hub.update_scalar('train/skipped_steps', skipped)
        if self._norm is not None and not runner.optim_wrapper.clip_grad_kwargs:
            hub.update_scalar('train/grad_norm', self._norm)
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if scaler is not None and (in_a_row or self.every_n_train_iters(runner, 10)):
            hub.update_scalar('train/loss_scale', scaler.get_scale())
        if in_a_row:
            self._note(runner, in_a_row, scaler)
        self._files, self._losses, self._bad_losses = [], {}, None
        self._norm, self._stepped = None, False
        if in_a_row >= self.patience:
            self._give_up(runner)

    def _note(self, runner: Runner, in_a_row: int, scaler: Any) -> None:
        step = dict(
            iteration=runner.iter + 1,
            losses={name: float(value) for name, value in self._losses.items()},
            grad_norm=self._norm,
            loss_scale=None if scaler is None else scaler.get_scale(),
            lr=runner.optim_wrapper.get_lr(),
            files=self._files,
        )
        self._skipped.append(step)
        runner.logger.warning(
            f'NaN or Inf in the losses or gradients of iteration {runner.iter + 1}: the step is '
            f'skipped ({in_a_row} in a row; training stops at {self.patience}). Losses: '
            f'{step["losses"]}, loss scale: {step["loss_scale"]}.'
        )

    def _give_up(self, runner: Runner) -> None:
        state = unwrapped_model(runner).state_dict()
        spoiled = [name for name, value in state.items() if not torch.isfinite(value.float()).all()]
        path = Path(runner.work_dir, f'divergence_rank{get_rank()}.json')
        report = dict(skipped=[*self._skipped], weights_and_buffers_not_finite=spoiled)
        write_atomic(path, json.dumps(report, indent=1, default=str).encode())
        raise DivergenceError(
            f'Training has diverged: NaN or Inf in {self.patience} steps in a row, the last one '
            f'iteration {runner.iter + 1}. {path} names their images, losses and scales. Look for '
            'damaged images there; otherwise lower the learning rate or the gradient clipping, '
            'lengthen the warm-up or train in bfloat16, and continue from an earlier checkpoint '
            'with --resume PATH.'
        )


def _files(data_batch: Any) -> list[str]:
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    return [str(getattr(sample, 'img_path', '?')) for sample in samples or ()]
