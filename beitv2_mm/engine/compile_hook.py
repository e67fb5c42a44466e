"""torch.compile, switched on in the config."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from beitv2_mm.engine.unwrap import unwrapped_model
from beitv2_mm.registry import HOOKS

# What a step spends its time in, by the names that the models of this package give it.
PARTS = ('logits_at', 'encode', 'decode', 'backbone', 'decode_head')

# With fewer than 8 images Inductor unrolls the sum of the position bias' gradient over them and
# puts it off, for all blocks, to the end of the backward pass: 95 of 607 MiB (base, batch 4).
CPU_OPTIONS = dict(unroll_reductions_threshold=1)


def compile_options(device: str, options: dict[str, Any]) -> dict[str, Any]:
    """``options`` of torch.compile, on a CPU with `CPU_OPTIONS`: for Inductor, which takes a mode
    or options but not both."""
    inductor = options.get('backend', 'inductor') == 'inductor' and not options.get('mode')
    if device != 'cpu' or not inductor:
        return options
    return {**options, 'options': {**CPU_OPTIONS, **(options.get('options') or {})}}


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles the networks of the model; they run so in training and in evaluation.

        python tools/train.py CONFIG --cfg-options default_hooks.compile.enabled=True

    Those are: of masked image modelling, all that follows from images and masks up to the logits,
    as one graph; the tokenizer's encoder and decoder; of classifiers and segmentors, backbone and
    decode head. Weights, checkpoints and the optimizer know nothing of it. mmengine's own
    ``compile=True`` compiles the whole training step, which breaks into many graphs.

    Args:
        options: of torch.compile (``mode``, ``backend``, ``dynamic``, ``fullgraph``, ...).

    Raises:
        ValueError: in `before_run`, for ``backend='eager'`` with gradient checkpointing.
    """

    def __init__(self, enabled: bool = True, **options: Any) -> None:
        self.enabled = enabled
        self.options = options

    def before_run(self, runner: Runner) -> None:
        if not self.enabled:
            return
        model = unwrapped_model(runner)
        names = [name for name in PARTS if hasattr(model, name)]
        if 'logits_at' in names:  # the backbone is a part of it
            names = ['logits_at']
        if self.options.get('backend') == 'eager' and any(
            getattr(module, 'with_cp', False) for module in model.modules()
        ):
            raise ValueError(
                "backend='eager' draws other random numbers where blocks are computed again (seen "
                "with PyTorch 2.14). Take backend='aot_eager', or with_cp=False in the model."
            )
        options = compile_options(next(model.parameters()).device.type, self.options)
        for name in names:
            part = getattr(model, name)
            if isinstance(part, nn.Module):  # mmseg's heads call their forward, not themselves
                part.forward = torch.compile(part.forward, **options)
            else:
                setattr(model, name, torch.compile(part, **options))
        if not names:
            runner.logger.warning(f'{type(model).__name__} has nothing of {PARTS} to compile.')
        runner.logger.info(f'compiled at the first batch, which takes its time: {names}')
