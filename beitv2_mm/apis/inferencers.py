"""mmpretrain's inferencers for the models of this package: images -> classes, images -> features.

    ClassificationInferencer('beitv2_base_patch16_224_pt1k_ft1k')('cat.jpg', top_k=5)

Only the weights that are asked for are downloaded, not those that the training started from.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.model import BaseModel
from mmpretrain.apis import FeatureExtractor, ImageClassificationInferencer
from mmpretrain.models import BaseClassifier
from mmpretrain.registry import TRANSFORMS
from torch import Tensor

from beitv2_mm.apis.zoo import get_model, list_models
from beitv2_mm.datasets.reading import UnreadableImageError

Image = str | PathLike | np.ndarray
Model: TypeAlias = BaseModel | str | PathLike | Config  # type: ignore[valid-type]


class _Preprocessing:
    """Runs the config's test pipeline, including its image loader, so that the results are those of
    tools/test.py.

    A config without test data gives the pipeline as `test_pipeline`. The white level and the number
    of channels come from the test data or the checkpoint. Arrays are (H, W, 3) in BGR, or have the
    number of channels that the model takes, and skip the loader.
    """

    def _init_pipeline(self, cfg: Config) -> tuple[Callable, Callable]:
        loader = cfg.get('test_dataloader')
        steps = loader.dataset.pipeline if loader else cfg.test_pipeline
        model = getattr(self, 'model', None)
        self._rules = pixel_rules(loader.dataset if loader else {}, model)
        transforms = [TRANSFORMS.build(step) for step in steps]
        loaders = [t for t in transforms if _is_loader(t)]
        return Compose(loaders), Compose([t for t in transforms if not _is_loader(t)])

    def _read(self, image: Image) -> dict:
        load, _ = self.pipeline  # type: ignore[attr-defined]
        return load_sample(image, load, self._rules)

    def _prepare(self, image: Image) -> Any:
        _, transform = self.pipeline  # type: ignore[attr-defined]
        return transform(self._read(image))

    def preprocess(self, inputs: Iterable[Image], batch_size: int = 1) -> Iterator[dict]:
        prepared = map(self._prepare, inputs)
        yield from map(default_collate, self._get_chunk_data(prepared, batch_size))  # type: ignore[attr-defined]


def _is_loader(transform: object) -> bool:
    """Whether this is our image loader, mmcv's, or derived from one of them."""
    return any(kind.__name__ == 'LoadImageFromFile' for kind in type(transform).__mro__)


def load_sample(image: Image, load: Callable, rules: Mapping[str, Any]) -> dict[str, Any]:
    """The image as a config's loader gives it: 'img' (H, W, C), three channels in BGR.

    Args:
        rules: see `pixel_rules`.

    Raises:
        ValueError: the image cannot be read.
    """
    if isinstance(image, np.ndarray):
        shape = image.shape[:2]
        return dict(img=image, img_shape=shape, ori_shape=shape, img_path='array')
    try:
        return load(dict(img_path=str(image), **rules))  # type: ignore[no-any-return]
    except UnreadableImageError:
        raise
    except Exception as error:  # of another package's loader
        raise ValueError(f'Cannot read the image {image}: {error}') from error


def pixel_rules(dataset: Mapping[str, Any], model: BaseModel | None) -> dict[str, Any]:
    """The white level and the number of channels by which `beitv2_mm.datasets` reads images: those
    of a data set's config, or else those that the checkpoint states from its training."""
    known = getattr(model, '_pixel_rules', {})
    given = {key: dataset.get(key) for key in ('white', 'channels')}
    rules = {key: known.get(key) if given[key] in (None, 'auto') else given[key] for key in given}
    return {key: value for key, value in rules.items() if value is not None}


def _built(model: Model, pretrained: bool | str, device: Any, options: dict) -> BaseModel:
    if isinstance(model, BaseModel):
        return model
    return get_model(model, pretrained, device, **options)


class ClassificationInferencer(_Preprocessing, ImageClassificationInferencer):
    """Images -> the most likely classes.

    Args:
        model: a name of `beitv2_mm.list_models`, config, config file, or a model from `get_model`.
        pretrained: True for the published weights, or a checkpoint of any layout.
        classes: their names; None takes the checkpoint's, or ImageNet's for 1000 classes.
        kwargs: settings of the model.
    """

    def __init__(
        self,
        model: Model,
        pretrained: bool | str = True,
        device: str | torch.device | None = None,
        classes: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(_built(model, pretrained, device, kwargs), True, device, classes)

    postprocess_kwargs = {'top_k'}  # noqa: RUF012  as mmpretrain declares it

    def postprocess(
        self, preds: list, visualization: list, return_datasamples: bool = False, top_k: int = 1
    ) -> list:
        """mmpretrain's results; with ``top_k`` over 1 also 'top_k', a list of dicts."""
        results = super().postprocess(preds, visualization, return_datasamples)
        if return_datasamples or top_k == 1:
            return results
        for result in results:
            scores = torch.from_numpy(result['pred_scores'])
            best = scores.topk(min(top_k, len(scores)))
            result['top_k'] = [
                dict(
                    label=label,
                    score=score,
                    **({} if self.classes is None else {'class': self.classes[label]}),
                )
                for score, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
        return results

    @staticmethod
    def list_models(pattern: str | None = None) -> list[str]:
        return list_models(pattern, task='Image Classification')


class FeatureInferencer(_Preprocessing, FeatureExtractor):
    """Images -> a tuple of the backbone's outputs for each image. Its ``out_type`` decides what
    they are, e.g. ``backbone=dict(out_type='featmap', out_indices=(3, 5, 7, 11))``.

    Args: see `ClassificationInferencer`.
    """

    def __init__(
        self,
        model: Model,
        pretrained: bool | str = True,
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(_built(model, pretrained, device, kwargs), True, device)

    @torch.no_grad()
    def forward(self, inputs: dict, **kwargs: Any) -> list[tuple[Tensor, ...]]:
        """Features of a batch, image by image; ``kwargs`` are those of the model's extract_feat."""
        if isinstance(self.model, BaseClassifier):
            return super().forward(inputs, stage=kwargs.pop('stage', 'backbone'), **kwargs)
        images = self.model.data_preprocessor(inputs, False)['inputs']
        outputs = self.model(images)  # a pretrainer: unmasked images
        return [tuple(output[i] for output in outputs) for i in range(len(images))]

    @staticmethod
    def list_models(pattern: str | None = None) -> list[str]:
        segmentors = list_models(pattern, task='Semantic Segmentation')  # read annotations too
        names = set(list_models(pattern)).difference(segmentors)
        return sorted(name for name in names if not name.startswith('vqkd'))
