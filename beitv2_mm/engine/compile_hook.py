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

# Inductor would add the position bias' gradients of all blocks at the end, and hold them until
# then, where a batch has fewer than 8 images: 95 MiB of 607 in a step of base, batch 4.
INDUCTOR_OPTIONS = dict(unroll_reductions_threshold=1)


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
    """

    def __init__(self, enabled: bool = True, **options: Any) -> None:
        self.enabled = enabled
        if not {'mode', 'backend', 'options'} & options.keys():  # with which they cannot be given
            options['options'] = INDUCTOR_OPTIONS
        self.options = options

    def before_run(self, runner: Runner) -> None:
        if not self.enabled:
            return
        model = unwrapped_model(runner)
        names = [name for name in PARTS if hasattr(model, name)]
        if 'logits_at' in names:  # the backbone is a part of it
            names = ['logits_at']
        for name in names:
            part = getattr(model, name)
            if isinstance(part, nn.Module):  # mmseg's heads call their forward, not themselves
                part.forward = torch.compile(part.forward, **self.options)
            else:
                setattr(model, name, torch.compile(part, **self.options))
        if not names:
            runner.logger.warning(f'{type(model).__name__} has nothing of {PARTS} to compile.')
        runner.logger.info(f'compiled at the first batch, which takes its time: {names}')
