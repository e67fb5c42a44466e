"""Images -> label maps and overlays, by any segmentation model on this backbone.

    SegmentationInferencer('beitv2_base_patch16_224_pt1k_ftade20k')('street.jpg')[0].labels

mmseg's own inferencer looks transforms up by their names, and configs of this package name classes.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import print_log
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope
from PIL import Image

from beitv2_mm.apis.files import result_names
from beitv2_mm.apis.inferencers import Image as ImageInput
from beitv2_mm.apis.inferencers import load_sample, pixel_rules
from beitv2_mm.apis.zoo import get_model
from beitv2_mm.checkpoint import dataset_meta
from beitv2_mm.engine.out_of_memory import is_out_of_memory
from beitv2_mm.registry import type_name
from beitv2_mm.visualization.canvas import as_picture, default_palette
from beitv2_mm.visualization.segmentation import draw_with_legend

WHOLE = 4  # see `SegmentationInferencer`
MASK_LOADERS = ('LoadAnnotations', 'LoadMask')


class Segmentation(NamedTuple):
    """An image and its predicted label map."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    labels: np.ndarray  # (H, W) uint8


class SegmentationInferencer:
    """Images -> label maps of their own size, through the config's test pipeline.

    In mode 'whole', an image of more than `WHOLE` times the pixels of a training crop is segmented
    by sliding windows of the crop's size, because the memory for attention grows with the square of
    the number of pixels.

    Args:
        model: a name of `beitv2_mm.list_models`, a config or a config file.
        pretrained: True for the published weights, or a checkpoint of any layout.
        classes: their names; None takes the checkpoint's, then those of the config's test data.
        palette: an (R, G, B) for each class; None takes those of the same source, or makes some.
        kwargs: settings of the model, e.g. ``test_cfg=dict(windows_per_batch=2)``.

    Raises:
        ValueError: the model does not segment, or has another number of classes.
    """

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
        if not hasattr(self.model, 'decode_head'):
            raise ValueError(f'{model} is no segmentation model: {type(self.model).__name__}.')
        scope = DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmseg')
        with scope:  # for text configs
            steps = [s for s in _dataset(config).pipeline if type_name(s) not in MASK_LOADERS]
            self._load = TRANSFORMS.build(steps[0])
            self._transform = Compose([TRANSFORMS.build(step) for step in steps[1:]])
            known = _meta(config, pretrained)
        self._rules = pixel_rules(_dataset(config), self.model)
        self._slides = False
        count = self.model.num_classes
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

    def __call__(self, inputs: ImageInput | Iterable[ImageInput]) -> list[Segmentation]:
        """Paths, or arrays (H, W, 3) uint8 in BGR, one or many -> one result each."""
        if isinstance(inputs, (str, PathLike, np.ndarray)):
            inputs = [inputs]
        return list(self.stream(inputs))

    def stream(self, inputs: Iterable[ImageInput]) -> Iterator[Segmentation]:
        """Yields one result after the other, so that those of many images need no memory."""
        return map(self._segment, inputs)

    @torch.no_grad()
    def _segment(self, given: ImageInput) -> Segmentation:
        loaded = load_sample(given, self._load, self._rules)
        image = as_picture(loaded['img'])
        loaded.update(seg_fields=[], reduce_zero_label=False)
        data = self._transform(loaded)
        with self._windows(data['inputs'].shape[-2:]):
            result = self.model.test_step(pseudo_collate([data]))[0]
        labels = result.pred_sem_seg.data.squeeze(0).cpu().numpy().astype(np.uint8)
        return Segmentation(image, labels)

    @contextmanager
    def _windows(self, size: Sequence[int]) -> Iterator[None]:
        """Let the model slide a window over an image that is too large for its mode 'whole'."""
        before = self.model.test_cfg
        crop = _crop(self.model)
        if before.mode != 'whole' or crop is None or math.prod(size) <= WHOLE * math.prod(crop):
            yield
            return
        if not self._slides:
            self._slides = True
            print_log(
                f"mode='whole' is for images of up to {WHOLE} times the pixels of a training crop; "
                f'larger ones are segmented by sliding windows of {crop[0]} x {crop[1]}.',
                'current',
            )
        stride = tuple(max(side * 2 // 3, 1) for side in crop)
        slide = dict(mode='slide', crop_size=crop, stride=stride)
        self.model.test_cfg = ConfigDict({**before, **slide})
        try:
            yield
        finally:
            self.model.test_cfg = before

    def draw(self, result: Segmentation, opacity: float = 0.5) -> Image.Image:
        """The image under the colours of its classes, beside their names."""
        return draw_with_legend(*result, self.palette, self.classes, opacity)


def _crop(model: Any) -> tuple[int, int] | None:
    """Height and width of the crops that the model is trained with; None where it has neither a
    crop size nor an image size."""
    size = getattr(model.data_preprocessor, 'size', None)
    size = size or getattr(model.backbone, 'img_size', None)
    return size and ((size, size) if isinstance(size, int) else (size[0], size[1]))


def _dataset(config: Config) -> Any:
    loader = config.get('test_dataloader') or config.get('val_dataloader')
    if loader is None:
        raise ValueError('The config has no test_dataloader, which says how images are read.')
    return loader.dataset


def _meta(config: Config, checkpoint: bool | str | PathLike) -> dict[str, Any]:
    """Names and colours of the classes, where the checkpoint or the config states them."""
    if isinstance(checkpoint, (str, PathLike)):
        meta = dataset_meta(checkpoint)
        if 'classes' in meta:
            return meta
    dataset = _dataset(config)
    kind = dataset['type']
    described = getattr(DATASETS.get(kind) if isinstance(kind, str) else kind, 'METAINFO', {})
    given = dataset.get('metainfo') or {}
    return {
        key: dataset.get(key) or given.get(key) or described.get(key)
        for key in ('classes', 'palette')
    }


def segment_images(
    files: Sequence[str],
    inferencer: SegmentationInferencer,
    out: str | PathLike,
    opacity: float = 0.5,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, str]:
    """Write ``out/labels/NAME.png``, palette PNGs whose values are the labels, and
    ``out/overlays/NAME.png`` with a legend.

    Args:
        files: see `beitv2_mm.apis.find_images`.
        progress: called with the number of images finished since the last call.

    Returns:
        Files that are unreadable or too large for the memory, and the reasons.
    """
    unreadable = {}
    for file, name in zip(files, result_names(files), strict=True):
        try:
            result = inferencer(file)[0]
        except ValueError as error:
            unreadable[file] = str(error)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
            unreadable[file] = (
                f'Memory ran out at {file} ({reason}): try --windows-per-batch 1 or a smaller image'
            )
        else:
            labels = Image.fromarray(result.labels)
            labels.putpalette(inferencer.palette.tobytes())
            pictures = dict(labels=labels, overlays=inferencer.draw(result, opacity))
            for folder, picture in pictures.items():
                path = Path(out, folder, f'{name}.png')
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
        progress(1)
    return unreadable
