"""torch.compile, switched on in the config."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from beitv2_mm.engine.hooks.compiled_part import CompiledPart
from beitv2_mm.engine.unwrap import unwrapped_model
from beitv2_mm.layers.recompute import COMPILES_SELECTIVE
from beitv2_mm.registry import HOOKS

# The parts that take the time of a step, by their names in the models of this package.
PARTS = ('encode', 'decode', 'backbone', 'neck', 'decode_head', 'auxiliary_head')
# Those that contain all other parts: of masked image modelling, in training and evaluation, and of
# models on codes.
WHOLE = (('losses_at', 'logits_at'), ('from_vectors',))

# For fewer than 8 images, Inductor unrolls the sum of the position bias' gradient over the images,
# and delays it in all blocks to the end of the backward pass, which takes 95 of 607 MiB (base,
# batch 4).
CPU_OPTIONS = dict(unroll_reductions_threshold=1)


def compile_options(device: str, options: dict[str, Any]) -> dict[str, Any]:
    """Adds `CPU_OPTIONS` to ``options`` of torch.compile on a CPU, for Inductor without a mode:
    PyTorch takes a mode or options, but not both."""
    inductor = options.get('backend', 'inductor') == 'inductor' and not options.get('mode')
    if device != 'cpu' or not inductor:
        return options
    return {**options, 'options': {**CPU_OPTIONS, **(options.get('options') or {})}}


def compile_parts(model: nn.Module, strict: bool = False, **options: Any) -> list[str]:
    """Compiles the parts of a model that `CompileHook` lists, and returns their names.

    Args:
        strict: raise the error of a failed compilation, instead of running the part uncompiled.
        options: options of torch.compile.
    """
    names = next((parts for parts in WHOLE if hasattr(model, parts[0])), PARTS)
    found = [name for name in names if getattr(model, name, None) is not None]
    options = compile_options(next(model.parameters()).device.type, {'dynamic': False, **options})
    for name in found:
        part = getattr(model, name)
        if isinstance(part, nn.Module):  # mmseg's heads call their forward, not themselves
            part.forward = CompiledPart(name, part.forward, part, strict, options)
        else:
            setattr(model, name, CompiledPart(name, part, model, strict, options))
    return found


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles the networks of a model, for training and for evaluation.

        python tools/train.py CONFIG --cfg-options default_hooks.compile.enabled=True

    In masked image modelling, everything from images and masks to the losses is one graph, and on
    codes, everything from their vectors to pixels or logits; in a tokenizer, the encoder and the
    decoder are compiled, and in classifiers and segmentors the backbone, neck and decode heads.
    Weights, checkpoints and the optimizer stay the same. The ``compile=True`` of mmengine compiles
    the whole training step, which breaks into many graphs.

    Sizes are static, and a part is compiled for a few sizes only, see `CompiledPart`. A part that
    cannot be compiled runs uncompiled, with a warning that gives the reason.

    Args:
        strict: end the run with the error of a failed compilation.
        options: options of torch.compile (``mode``, ``backend``, ``dynamic``, ``fullgraph``, ...).

    Raises:
        ValueError: in `before_run`, for ``backend='eager'`` with gradient checkpointing.
    """

    def __init__(self, enabled: bool = True, strict: bool = False, **options: Any) -> None:
        self.enabled = enabled
        self.strict = strict
        self.options = options

    def before_run(self, runner: Runner) -> None:
        if not self.enabled:
            return
        model = unwrapped_model(runner)
        recomputing = {getattr(module, 'with_cp', False) for module in model.modules()} - {False}
        if self.options.get('backend') == 'eager' and recomputing:
            raise ValueError(
                "backend='eager' draws other random numbers when blocks are recomputed (seen with "
                "PyTorch 2.14). Take backend='aot_eager', or with_cp=False in the model."
            )
        if 'selective' in recomputing and not COMPILES_SELECTIVE:
            runner.logger.info(
                "with_cp='selective' is compiled from PyTorch 2.14 on: with "
                f'{torch.__version__} compiled blocks keep all activations.'
            )
        names = compile_parts(model, self.strict, **self.options)
        if not names:
            runner.logger.warning(f'{type(model).__name__} has no part to compile of {PARTS}.')
        runner.logger.info(f'compiled at the first batch, which may take minutes: {names}')
