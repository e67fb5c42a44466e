"""Lets ``load_from`` and tools/test.py take checkpoints of any known layout."""

import re
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.optim import Optimizer

from beitv2_mm.checkpoint import CheckpointError, adapt, official_name, read
from beitv2_mm.checkpoint.names import HEADS
from beitv2_mm.engine.unwrap import unwrapped_model, whole_model
from beitv2_mm.models.base import PretrainedModule, load_pretrained
from beitv2_mm.registry import HOOKS

# all of it, for it is more than a classifier; the auxiliary head has no part in an evaluation
_DECODER = re.compile(r'(decode_head|fpn\d)\.(?!.*num_batches_tracked)')


@HOOKS.register_module()
class AdaptCheckpointHook(Hook):
    """Renames, copies and resizes what the runner has read, before the model sees it.

    ``init_cfg=dict(type='Pretrained', ...)`` of a whole model that is not of this package, such as
    mmpretrain's ImageClassifier, is taken over too: mmengine would load nothing from most layouts.

    A checkpoint whose names and shapes are the model's own stays as it is, and so does every
    checkpoint for a model without a module of this package.

    Args:
        require_head: refuse a checkpoint without the model's head, which would be evaluated with
            random weights.
    """

    priority = 'HIGH'  # before the hooks that read the weights, such as model EMA

    def __init__(self, require_head: bool = False) -> None:
        self.require_head = require_head

    def before_run(self, runner: Runner) -> None:
        """Initialises a model of another package from its ``init_cfg``, before the runner would."""
        model = _own_model(runner)
        config = getattr(model, 'init_cfg', None)
        if model is None or isinstance(model, PretrainedModule) or not isinstance(config, dict):
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
        _keep_implementation(runner, checkpoint)
        model = _own_model(runner)
        if model is None:
            return
        if _fits(_weights(checkpoint), model):
            return
        adapted, report = adapt(read(checkpoint), model)
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


def _keep_implementation(runner: Runner, checkpoint: Any) -> None:
    """Whether the optimizer is fused is the config's choice. PyTorch would take the checkpoint's,
    and a GradScaler fail over an optimizer that was built for the other."""
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    saved = checkpoint.get('optimizer') if isinstance(checkpoint, dict) else None
    if isinstance(optimizer, Optimizer) and isinstance(saved, dict):
        own = optimizer.param_groups[0]
        for group in saved.get('param_groups', ()):
            group.update({key: own[key] for key in ('fused', 'foreach') if key in own})


def _own_model(runner: Runner) -> Any:
    """The model, not wrapped; None where no part of it is of this package."""
    model = whole_model(runner)
    return model if any(isinstance(m, PretrainedModule) for m in model.modules()) else None


def _weights(checkpoint: Any) -> dict[str, Any]:
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f'the checkpoint is a {type(checkpoint).__name__}; expected a dict')
    found = checkpoint.get('state_dict', {})
    return {str(name): value for name, value in found.items()} if isinstance(found, dict) else {}


def _fits(state_dict: dict[str, Any], model: nn.Module) -> bool:
    given = {name.removeprefix('module.'): value for name, value in state_dict.items()}
    return all(
        getattr(given.get(name.removeprefix('module.')), 'shape', None) == value.shape
        for name, value in model.state_dict().items()
    )
