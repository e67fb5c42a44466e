"""Checkpoints of any known layout for ``load_from`` and tools/test.py."""

import re
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.optim import Optimizer

from beitv2_mm.checkpoint import CheckpointError, adapt, official_name
from beitv2_mm.checkpoint.files import open_checkpoint
from beitv2_mm.checkpoint.names import HEADS
from beitv2_mm.engine.unwrap import unwrapped_model, whole_model
from beitv2_mm.models.base import PretrainedModule, load_pretrained
from beitv2_mm.registry import HOOKS

# The whole decoder counts as a head; the auxiliary head takes no part in an evaluation.
_DECODER = re.compile(r'(decode_head|fpn\d)\.(?!.*num_batches_tracked)')


@HOOKS.register_module()
class AdaptCheckpointHook(Hook):
    """Renames, copies and resizes the weights of a checkpoint before the model loads them.

    The ``init_cfg=dict(type='Pretrained', ...)`` of a whole model of another package, such as
    mmpretrain's ImageClassifier, is handled too: mmengine would load nothing from most layouts.

    A checkpoint whose names and shapes are the model's own is left as it is. A model without a
    module of this package gets every checkpoint unchanged, but one with none of its weights is
    refused: mmengine only warns, and would train or test random weights.

    Args:
        require_head: refuse a checkpoint without the model's head, which would be evaluated with
            random weights.
    """

    priority = 'HIGH'  # before the hooks that read the weights, such as model EMA

    def __init__(self, require_head: bool = False) -> None:
        self.require_head = require_head

    def before_run(self, runner: Runner) -> None:
        """Initialises a model of another package from its ``init_cfg``, before the runner does."""
        model = whole_model(runner)
        config = getattr(model, 'init_cfg', None)
        if isinstance(model, PretrainedModule) or not isinstance(config, dict):
            return
        if not _has_our_module(model):
            return
        if model is not unwrapped_model(runner):  # sharded: too late
            return
        if config['type'] not in ('Pretrained', PretrainedInit):
            return
        if isinstance(runner._train_loop, BaseLoop):  # a test run loads a checkpoint instead
            model.init_cfg = None
            model.init_weights()
            load_pretrained(model, config)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if not isinstance(checkpoint, dict):
            raise CheckpointError(
                f'the checkpoint is a {type(checkpoint).__name__}; expected a dict'
            )
        _keep_implementation(runner, checkpoint)
        model = whole_model(runner)
        if not _has_our_module(model):
            _require_shared_weight(checkpoint, model)
            return
        if _fits(checkpoint, model):
            return
        found = open_checkpoint(checkpoint)
        adapted, report = adapt(found.tensors, model)
        report.notes += [found.note] if found.note else []
        heads = [
            name
            for name in (*report.dropped, *report.missing)
            if HEADS.match(official_name(name)) or _DECODER.match(official_name(name))
        ]
        if self.require_head and heads:
            shapes = [f'{k}: {old}, expected {new}' for k, (old, new) in report.dropped.items()]
            raise CheckpointError(
                f'the checkpoint has no head for this model ({"; ".join(shapes) or heads[0]}), '
                'so there is nothing to evaluate: fine-tune first, or set num_classes to its own'
            )
        checkpoint['state_dict'] = adapted
        print_log(f'checkpoint adapted: {report}', logger='current')


def _keep_implementation(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """Lets the config decide whether the optimizer is fused, not the checkpoint, as PyTorch would:
    a GradScaler fails with an optimizer that was built for the other implementation."""
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    saved = checkpoint.get('optimizer')
    if isinstance(optimizer, Optimizer) and isinstance(saved, dict):
        own = optimizer.param_groups[0]
        for group in saved.get('param_groups', ()):
            group.update({key: own[key] for key in ('fused', 'foreach') if key in own})


def _has_our_module(model: nn.Module) -> bool:
    return any(isinstance(module, PretrainedModule) for module in model.modules())


def _fits(checkpoint: dict[str, Any], model: nn.Module) -> bool:
    """Whether the checkpoint has every weight of the model, by name and shape."""
    given = _shapes(checkpoint.get('state_dict'))
    return all(given.get(name) == shape for name, shape in _shapes(model.state_dict()).items())


def _require_shared_weight(checkpoint: dict[str, Any], model: nn.Module) -> None:
    """Raises a CheckpointError where the checkpoint has no weight of the model."""
    given = _shapes(checkpoint.get('state_dict', checkpoint))
    expected = _shapes(model.state_dict())
    if expected and not any(given.get(name) == shape for name, shape in expected.items()):
        raise CheckpointError(
            f'the checkpoint is of another model than {type(model).__name__}: it has none of its '
            f'weights (given: {_first(given)}; expected: {_first(expected)})'
        )


def _shapes(weights: Any) -> dict[str, Any]:
    """Name -> shape, without the prefix that data parallelism and test-time augmentation add."""
    items = weights.items() if isinstance(weights, Mapping) else ()
    return {
        str(name).removeprefix('module.'): getattr(value, 'shape', None) for name, value in items
    }


def _first(shapes: dict[str, Any]) -> str:
    return ', '.join(f'{name[:80]} {tuple(shape or ())}' for name, shape in [*shapes.items()][:3])
