"""Contrastive training of images and texts: unit vectors (B, d) -> a loss over all ranks."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel, ImgDataPreprocessor
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

from beitv2_mm.layers.ranks import world_size
from beitv2_mm.models.base import Config, InitCfg
from beitv2_mm.registry import MODELS

LossKind = Literal['sigmoid', 'softmax']


def gathered(x: Tensor) -> Tensor:
    """(B, ...) of this rank -> (ranks * B, ...) of all ranks; gradients go back to each."""
    return torch.cat(all_gather(x)) if world_size() > 1 else x


def contrastive_loss(
    images: Tensor, texts: Tensor, ids: Tensor, scale: Tensor, bias: Tensor | None
) -> Tensor:
    """The loss of the pairs of this rank against those of all ranks, whose mean over the ranks is
    the loss of the whole batch.

    With a bias it is the sigmoid loss (Zhai et al., 2023, equation 1), without one CLIP's softmax
    loss in both directions (Radford et al., 2021). Texts that are equal count as pairs with each
    other's images: they are no negatives.

    Args:
        images, texts: (B, d) unit vectors.
        ids: (B, L) tokens of the texts.
        scale, bias: scalars; the similarity of a pair is scale * cosine + bias.
    """
    all_images, all_texts, all_ids = gathered(images), gathered(texts), gathered(ids)
    same = (ids[:, None] == all_ids).all(-1)  # (B, ranks * B)
    if bias is not None:
        logits = scale * images @ all_texts.T + bias
        signs = torch.where(same, 1.0, -1.0)
        return -F.logsigmoid(signs * logits).sum(1).mean()
    wanted = same / same.sum(1, keepdim=True)
    by_image = F.cross_entropy(scale * images @ all_texts.T, wanted)
    by_text = F.cross_entropy(scale * texts @ all_images.T, wanted)
    return (by_image + by_text) / 2


@MODELS.register_module()
class ImageTextPreprocessor(ImgDataPreprocessor):
    """mmengine's ImgDataPreprocessor, which also stacks the tokens of the texts: ``ids`` (B, L).

    The data samples stay on the host; ids are copied to the device once, not text by text.
    """

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        samples = data.get('data_samples')
        batch = dict(super().forward(dict(inputs=data['inputs']), training), data_samples=samples)
        if samples and 'text_ids' in samples[0]:
            ids = torch.stack([sample.text_ids for sample in samples])
            batch['ids'] = ids.to(self.device, non_blocking=self._non_blocking)
        return batch


@MODELS.register_module()
class ImageTextModel(BaseModel):
    """A backbone and a text encoder whose vectors of a pair are trained to be alike.

    Args:
        backbone: config of a `BEiTV2Backbone` with ``out_type='avg_featmap'``.
        text: config of a `TextEncoder`.
        dims: width d of the common space; None for that of the text encoder, whose vectors then are
            not projected (locked text).
        loss: 'sigmoid' or 'softmax', see `contrastive_loss`.
        frozen: towers that are not trained, 'backbone' (locked-image tuning, Zhai et al., 2022) or
            'text'; their projections are.
    """

    def __init__(
        self,
        backbone: Config,
        text: Config,
        dims: int | None = 256,
        loss: LossKind = 'sigmoid',
        frozen: Sequence[Literal['backbone', 'text']] = (),
        data_preprocessor: Config | nn.Module | None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(type=ImageTextPreprocessor), init_cfg)
        if loss not in ('sigmoid', 'softmax'):
            raise ValueError(f"loss is 'sigmoid' or 'softmax', but {loss!r} was given.")
        self.backbone = MODELS.build(backbone)
        self.text = MODELS.build(text)
        width = self.text.embed_dims
        self.image_projection = nn.Linear(self.backbone.embed_dims, dims or width, bias=False)
        self.text_projection = nn.Linear(width, dims, bias=False) if dims else nn.Identity()
        sigmoid = loss == 'sigmoid'
        self.log_scale = nn.Parameter(torch.tensor(math.log(10 if sigmoid else 1 / 0.07)))
        self.bias = nn.Parameter(torch.tensor(-10.0)) if sigmoid else None
        self.frozen = [getattr(self, name) for name in frozen]
        for tower in self.frozen:
            tower.requires_grad_(False)

    def train(self, mode: bool = True) -> 'ImageTextModel':
        """Frozen towers stay as in evaluation."""
        super().train(mode)
        for tower in self.frozen:
            tower.eval()
        return self

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, C, H, W), normalised -> unit vectors (B, d)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.backbone not in self.frozen):
            features = self.backbone(images)[-1]
        return F.normalize(self.image_projection(features).float(), dim=-1)

    def encode_texts(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) -> unit vectors (B, d)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.text not in self.frozen):
            features = self.text(ids)
        return F.normalize(self.text_projection(features).float(), dim=-1)

    def loss(self, inputs: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """The contrastive loss of a batch of pairs."""
        images, texts = self.encode_images(inputs), self.encode_texts(ids)
        return dict(
            loss=contrastive_loss(images, texts, ids, self.log_scale.exp(), self.bias),
            scale=self.log_scale.detach().exp(),
        )

    def predict(self, inputs: Tensor, ids: Tensor, data_samples: list[Any]) -> list[Any]:
        """Writes ``image_vector`` and ``text_vector``, (d,) each, into the data samples."""
        vectors = self.encode_images(inputs), self.encode_texts(ids)
        for sample, image, text in zip(data_samples, *vectors, strict=True):
            sample.set_field(image, 'image_vector')
            sample.set_field(text, 'text_vector')
        return data_samples

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[Any] | None = None,
        ids: Tensor | None = None,
        mode: str = 'tensor',
    ) -> dict[str, Tensor] | list[Any] | Tensor:
        """Mode 'tensor' returns the images' vectors; 'loss' and 'predict' call the method of that
        name.

        Raises:
            ValueError: the mode is another one, or needs texts and there are none.
        """
        if mode == 'tensor':
            return self.encode_images(inputs)
        if mode not in ('loss', 'predict'):
            raise ValueError(f"mode is 'tensor', 'loss' or 'predict', but {mode!r} was given.")
        if ids is None:
            raise ValueError(
                'The batch has no texts: the pipeline needs TokenizeCaption, and PackInputs '
                "algorithm_keys=('text_ids',)."
            )
        if mode == 'loss':
            return self.loss(inputs, ids)
        return self.predict(inputs, ids, data_samples or [])
