"""A checkpoint of another model is an error."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from beitv2_mm.engine.errors import LaunchError
from beitv2_mm.engine.unwrap import whole_model


class SharedWeightsHook(Hook):
    """Refuses a checkpoint that has no weight of the model, by name and shape.

    mmengine loads what fits and lists the rest in a warning, so the checkpoint of another model
    would be trained or tested as random weights.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        model = whole_model(runner)
        given = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
        if not isinstance(given, dict):
            raise LaunchError(f'the checkpoint holds a {type(given).__name__} for weights')
        weights = {
            str(key).removeprefix('module.'): getattr(value, 'shape', None)
            for key, value in given.items()
        }
        # a model for test-time augmentation keeps the network in its `module`
        expected = {
            key.removeprefix('module.'): value.shape for key, value in model.state_dict().items()
        }
        if expected and not any(weights.get(key) == shape for key, shape in expected.items()):
            raise LaunchError(
                f'the checkpoint is of another model than {type(model).__name__}: it has none of '
                f'its weights (given: {_first(weights)}; expected: {_first(expected)})'
            )


def _first(shapes: dict[str, Any]) -> str:
    return ', '.join(f'{key[:80]} {tuple(shape or ())}' for key, shape in [*shapes.items()][:3])
