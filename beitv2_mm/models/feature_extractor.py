"""Feature extraction with a frozen backbone: images (B, C, H, W) -> features (B, D)."""

from typing import Any

from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor

from beitv2_mm.models.base import Config
from beitv2_mm.registry import MODELS


@MODELS.register_module()
class FeatureExtractor(ImageClassifier):
    """mmpretrain's ImageClassifier without a head.

    Any checkpoint that contains the backbone can be loaded: of masked image modelling or of a
    classifier.

    Args:
        backbone: config of a backbone whose last output is (B, D).
        kwargs: other arguments of ImageClassifier (``neck``, ``data_preprocessor``, ``init_cfg``).
    """

    def __init__(self, backbone: Config, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)

    def predict(
        self, inputs: Tensor, data_samples: list[Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Writes ``feature`` (D,) into the data samples; makes new ones if none are given."""
        features = self.extract_feat(inputs)[-1]
        samples = data_samples or [DataSample() for _ in features]
        for sample, feature in zip(samples, features, strict=True):
            sample.set_field(feature, 'feature')
        return samples
