"""What inferencers of models with pixel-wise or box-wise results share: the model, the test
pipeline of its config, and the names of its classes."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import PIL.Image
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope

from beitv2_mm.apis.files import result_names
from beitv2_mm.apis.inferencers import Image, load_sample, pixel_rules
from beitv2_mm.apis.zoo import get_model
from beitv2_mm.checkpoint import dataset_meta
from beitv2_mm.engine.out_of_memory import is_out_of_memory
from beitv2_mm.registry import type_name
from beitv2_mm.visualization.canvas import default_palette

ANNOTATION_LOADERS = ('LoadAnnotations', 'LoadMask')
Result = TypeVar('Result')


class PipelineInferencer(Generic[Result]):
    """Images -> one result each, through the config's test pipeline.

    The inferencers of mmseg and mmdet look transforms up by their names, and configs of this
    package name classes.

    Args:
        model: a name of `beitv2_mm.list_models`, a config or a config file.
        pretrained: True for the published weights, or a checkpoint of any layout.
        classes: their names; None takes the checkpoint's, then those of the config's test data.
        palette: an (R, G, B) for each class; None takes those of the same source, or makes some.
        kwargs: settings of the model, e.g. ``test_cfg=dict(windows_per_batch=2)``.

    Raises:
        ValueError: the model is of another kind, or has another number of classes.
    """

    scope: str  # of text configs
    kind: str  # what the model has to be, for messages

    def __init__(
        self,
        model: str | PathLike | Config,
        pretrained: bool | str | PathLike = True,
        device: str | torch.device | None = None,
        classes: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.model = get_model(model, pretrained, device, **kwargs)
        config = self.model._config
        if not self._suits():
            raise ValueError(f'{model} is no {self.kind} model: {type(self.model).__name__}.')
        dataset = _dataset(config)
        with DefaultScope.overwrite_default_scope(config.get('default_scope') or self.scope):
            steps = [s for s in dataset.pipeline if type_name(s) not in ANNOTATION_LOADERS]
            self._load = TRANSFORMS.build(steps[0])
            self._transform = Compose([TRANSFORMS.build(step) for step in steps[1:]])
            known = _meta(dataset, pretrained)
        self._rules = pixel_rules(dataset, self.model)
        count = self._num_classes()
        names = known.get('classes') or [f'class {i}' for i in range(count)]
        self.classes = list(names if classes is None else classes)
        colors = known.get('palette') if palette is None else palette
        usable = colors is not None and (palette is not None or len(colors) == count)
        self.palette = np.array(colors if usable else default_palette(count), np.uint8)
        if len(self.classes) != count or len(self.palette) != count:
            raise ValueError(
                f'The model has {count} classes, but there are {len(self.classes)} names and '
                f'{len(self.palette)} colours.'
            )

    def __call__(self, inputs: Image | Iterable[Image]) -> list[Result]:
        """Paths, or arrays (H, W, 3) uint8 in BGR, one or many -> one result each."""
        if isinstance(inputs, (str, PathLike, np.ndarray)):
            inputs = [inputs]
        return list(self.stream(inputs))

    def stream(self, inputs: Iterable[Image]) -> Iterator[Result]:
        """Yields one result after the other, so that those of many images need no memory."""
        return map(self._infer, inputs)

    def _read(self, image: Image) -> dict[str, Any]:
        """What the config's loader makes of an image: 'img' (H, W, C) and its shape."""
        return load_sample(image, self._load, self._rules)

    @abstractmethod
    def _suits(self) -> bool:
        """Whether the model is of this kind."""

    @abstractmethod
    def _num_classes(self) -> int:
        """The number of classes of the model."""

    @abstractmethod
    def _infer(self, image: Image) -> Result: ...


def infer_files(
    files: Sequence[str],
    infer: Callable[[str], Result],
    unreadable: dict[str, str],
    progress: Callable[[int], None] = lambda count: None,
    advice: str = 'try a smaller image',
) -> Iterator[tuple[str, Path, Result]]:
    """Yields each file, the relative name of its results, and its result.

    Args:
        infer: the result of a file, or a ValueError that says why it cannot be read.
        unreadable: files that cannot be read, or that the memory is too small for, are added here,
            with the reason.
        progress: called with the number of images finished since the last call.
        advice: what to do where the memory runs out.
    """
    for file, name in zip(files, result_names(files), strict=True):
        try:
            result = infer(file)
        except ValueError as error:
            unreadable[file] = str(error)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
            unreadable[file] = f'Memory ran out at {file} ({reason}): {advice}'
        else:
            yield file, name, result
        progress(1)


def save_picture(picture: PIL.Image.Image, path: Path) -> None:
    """Saves a picture in a folder that may not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _dataset(config: Config) -> Any:
    loader = config.get('test_dataloader') or config.get('val_dataloader')
    if loader is None:
        raise ValueError('The config has no test_dataloader, which says how images are read.')
    return loader.dataset


def _meta(dataset: Any, checkpoint: bool | str | PathLike) -> dict[str, Any]:
    """Names and colours of the classes, where the checkpoint or the config's data states them."""
    if isinstance(checkpoint, (str, PathLike)):
        meta = dataset_meta(checkpoint)
        if 'classes' in meta:
            return meta
    kind = dataset['type']
    described = getattr(DATASETS.get(kind) if isinstance(kind, str) else kind, 'METAINFO', {})
    given = dataset.get('metainfo') or {}
    return {
        key: dataset.get(key) or given.get(key) or described.get(key)
        for key in ('classes', 'palette')
    }
