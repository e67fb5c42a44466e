"""A backbone to be looked at, not trained: images -> one feature vector each (B, D)."""

from typing import Any

from mmpretrain.models import ImageClassifier
from torch import Tensor

from beitv2_mm.registry import MODELS


@MODELS.register_module()
class FeatureExtractor(ImageClassifier):
    """mmpretrain's ImageClassifier without a head.

    Any checkpoint that has the backbone is complete for it: masked image modelling or classifier.

    Args:
        backbone: config of a backbone whose last output is (B, D).
        kwargs: of ImageClassifier (``neck``, ``data_preprocessor``, ``init_cfg``).
    """

    def __init__(self, backbone: dict, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)

    def predict(self, inputs: Tensor, data_samples: list | None = None, **kwargs: Any) -> list:
        """Writes ``feature`` (D,) into the data samples."""
        features = self.extract_feat(inputs)[-1]
        for sample, feature in zip(data_samples or [], features, strict=True):
            sample.set_field(feature, 'feature')
        return data_samples or []
