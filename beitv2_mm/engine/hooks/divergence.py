"""Skips and counts training steps with NaN or Inf, and stops a run that has diverged."""

import json
from collections import deque
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.engine.errors import DivergenceError
from beitv2_mm.engine.unwrap import unwrapped_model
from beitv2_mm.registry import HOOKS


@HOOKS.register_module()
class DivergenceGuardHook(Hook):
    """Skips the steps whose losses or gradients are NaN or Inf.

    All ranks skip a step together. Steps that a GradScaler skips, as it does now and then to find
    its scale, count too. The hook logs ``grad_norm`` (before clipping), ``skipped_steps`` (of the
    whole run) and, in mixed precision, ``loss_scale``.

    The host waits for the device once per step: whether the step is finite, the norm and the scale
    are copied together with the values that the model logs, which mmengine would otherwise fetch
    one by one.

    After ``patience`` skipped steps in a row, the hook writes iterations, image files, losses,
    gradient norms and scales of these steps to ``divergence_rank<r>.json`` in the work directory,
    and raises a :class:`DivergenceError`. It needs an OptimWrapper with one optimizer; DeepSpeed
    has its own guard.
    """

    priority = 'HIGHEST'  # before RuntimeInfoHook, which then reads the logged values on the host

    def __init__(self, patience: int = 20) -> None:
        if patience < 1:
            raise ValueError(f'patience is {patience}; expected at least 1 step.')
        self.patience = patience
        self._skipped: deque[dict[str, Any]] = deque(maxlen=patience)
        self._files: list[str] = []
        self._logs: dict[str, Tensor] = {}
        self._bad_losses: Tensor | None = None
        self._clipped_norm: Tensor | None = None
        self._norm: float | None = None
        self._scale: float | None = None
        self._stepped = False

    def before_train(self, runner: Runner) -> None:
        wrapper = runner.optim_wrapper
        self._active = isinstance(wrapper, OptimWrapper) and not isinstance(
            wrapper, OptimWrapperDict
        )
        if not self._active:
            runner.logger.warning(
                f'Steps with NaN or Inf are not skipped with {type(wrapper).__name__}; an '
                'OptimWrapper is needed.'
            )
            return
        self._sharded = isinstance(runner.model, FullyShardedDataParallel)
        self._scaler = getattr(wrapper, 'loss_scaler', None)
        self._handle = wrapper.optimizer.register_step_pre_hook(self._before_step)
        self._model = unwrapped_model(runner)
        self._parse, self._model.parse_losses = self._model.parse_losses, self._parse_losses
        self._wrapper, self._clip = wrapper, None
        if wrapper.clip_grad_kwargs and wrapper.grad_name == 'grad_norm':
            self._clip, wrapper.clip_func = wrapper.clip_func, self._clip_grad_norm

    def after_train(self, runner: Runner) -> None:
        if self._active:
            self._handle.remove()
            del self._model.parse_losses  # which uncovers the method of the class
            if self._clip is not None:
                self._wrapper.clip_func = self._clip

    def _parse_losses(self, losses: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Records the values to log, without waiting for the device."""
        total, self._logs = self._parse(losses)
        parts = [value.detach() for name, value in self._logs.items() if 'loss' in name]
        bad = ~torch.stack(parts).isfinite().all()
        self._bad_losses = bad if self._bad_losses is None else self._bad_losses | bad
        return total, self._logs

    def _clip_grad_norm(self, parameters: Any, **limits: Any) -> None:
        """Keeps the norm on the device, while mmengine would fetch it."""
        assert self._clip is not None
        self._clipped_norm = self._clip(parameters, **limits)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Removes gradients that must not be used: the optimizer does nothing without gradients."""
        parameters = [p for group in optimizer.param_groups for p in group['params']]
        grads = [p.grad for p in parameters if p.grad is not None]
        if not grads:
            return
        if self._clipped_norm is None:
            norms = torch.stack([norm.float() for norm in torch._foreach_norm(grads)])
            squares = norms.square().sum()
        else:
            squares = self._clipped_norm.detach().float().square()
        bad = squares.new_zeros(()) if self._bad_losses is None else self._bad_losses.float()
        both = torch.stack([squares, bad])
        all_reduce(both)
        ones = both.new_ones(())
        scale = ones if self._scaler is None else self._scaler.scale(ones)
        divisor = getattr(optimizer, 'grad_scale', None)  # a fused optimizer divides by it later
        total, bad_losses, self._scale, divided = _fetch(
            self._logs, *both, scale, ones if divisor is None else divisor
        )
        pieces = self._sharded and self._clipped_norm is None
        self._norm = (total if pieces else total / get_world_size()) ** 0.5 / divided
        self._stepped = bad_losses == 0 and total < float('inf')
        if not self._stepped:
            for parameter in parameters:
                parameter.grad = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if isinstance(outputs, dict):
            _fetch(outputs)
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
        if self._norm is not None:
            hub.update_scalar('train/grad_norm', self._norm)
        if self._scaler is not None and in_a_row:
            self._scale = self._scaler.get_scale()  # it has just been lowered
        if self._scaler is not None and (in_a_row or self.every_n_train_iters(runner, 10)):
            hub.update_scalar('train/loss_scale', self._scale)
        if in_a_row:
            self._note(runner, in_a_row)
        self._files, self._logs, self._bad_losses = [], {}, None
        self._norm, self._clipped_norm, self._stepped = None, None, False
        if in_a_row >= self.patience:
            self._give_up(runner)

    def _note(self, runner: Runner, in_a_row: int) -> None:
        step = dict(
            iteration=runner.iter + 1,
            losses={name: float(v.detach()) for name, v in self._logs.items() if 'loss' in name},
            grad_norm=self._norm,
            loss_scale=None if self._scaler is None else self._scale,
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


def _fetch(logs: dict[str, Tensor], *others: Tensor) -> list[float]:
    """Copies logged values and ``others`` to the host in one go; returns the others' values."""
    names = [
        name
        for name, value in logs.items()
        if isinstance(value, Tensor) and value.numel() == 1 and value.device.type != 'cpu'
    ]
    values = [logs[name].detach().view(()) for name in names] + [*others]
    if not values:
        return []
    fetched = torch.stack([value.float() for value in values]).tolist()
    logs.update({n: torch.tensor(v) for n, v in zip(names, fetched, strict=False)})
    return fetched[len(names) :]


def _files(data_batch: Any) -> list[str]:
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    return [str(getattr(sample, 'img_path', '?')) for sample in samples or ()]
