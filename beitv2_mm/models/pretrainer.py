"""Masked image modelling: images in [0, 1] (B, 3, H, W) and masks -> losses (paper section 2.3)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from beitv2_mm.layers.block import LAYER_NORM_EPS
from beitv2_mm.layers.vision_transformer import patch_grid
from beitv2_mm.models.base import PretrainedModule
from beitv2_mm.models.frozen import Frozen
from beitv2_mm.models.tokenizer import UNIT_RGB, VQKDTokenizer, unit_float
from beitv2_mm.registry import MODELS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Masked(NamedTuple):
    """Where the masked patches are: nothing else needs to be computed."""

    patches: Tensor  # (B, M), row by row; an image with fewer than M is filled up with others
    valid: Tensor | None  # (B, M), False for those others; None where there are none

    def flatten(self, x: Tensor) -> Tensor:
        """What belongs to masked patches, image by image: (B, M, ...) -> (their number, ...)."""
        x = x.flatten(0, 1)
        return x if self.valid is None else x[self.valid.flatten()]


def find_masked(mask: Tensor) -> Masked:
    """Masks (B, rows, columns) or (B, N) bool -> the masked patches."""
    mask = mask.flatten(1)
    counts = mask.sum(dim=1)
    fewest, most = counts.aminmax()
    patches = mask.byte().sort(dim=1, descending=True, stable=True).indices[:, : int(most)]
    return Masked(patches, None if fewest == most else mask.gather(1, patches))


@MODELS.register_module()
class BEiTV2Pretrainer(PretrainedModule, BaseModel):
    """Backbone, aggregation neck and head against the codes of a frozen tokenizer.

    One view serves both networks: it is normalised here, with ``mean`` and ``std`` for the backbone
    and by the tokenizer for itself. The tokenizer is always in eval mode and in no checkpoint.

    Args:
        backbone: config of a `BEiTV2Backbone` with ``with_mask_token`` and a final norm.
        head: config of a `MIMHead`.
        tokenizer: config of a `VQKDTokenizer`, its ``init_cfg`` naming the trained weights.
        neck: config of a `PatchAggregationNeck`; None trains BEiT v1 style, without aggregation.
        mean, std: of the backbone's images, for pixels in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: dict,
        head: dict,
        tokenizer: dict,
        neck: dict | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor or UNIT_RGB, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = None if neck is None else MODELS.build(neck)
        self.head = MODELS.build(head)
        if self.backbone.mask_token is None or self.backbone.norm is None:
            raise ValueError(
                'Masked image modelling needs a backbone with with_mask_token=True and '
                "out_type='raw'."
            )
        if self.neck is not None and self.backbone.position == 'layerwise':
            raise ValueError(
                "Patch aggregation shares the backbone's positions: set its position to 'shared' "
                "or 'absolute'."
            )
        self._tokenizer = Frozen(lambda: self._build_tokenizer(tokenizer))
        self.register_buffer('mean', torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def _build_tokenizer(self, config: dict) -> nn.Module:
        tokenizer = MODELS.build({'type': VQKDTokenizer, **config})
        if tokenizer.quantize.num_codes != self.head.num_codes:
            raise ValueError(
                f'The tokenizer has {tokenizer.quantize.num_codes} codes, but the head predicts '
                f'{self.head.num_codes}: set num_codes of the head to the first number.'
            )
        tokenizer.init_weights()
        return tokenizer

    @property
    def tokenizer(self) -> nn.Module:
        """The frozen tokenizer, built on first use."""
        return self._tokenizer.on(self.mean.device)

    def reset_parameters(self) -> None:
        for module in (self.backbone, self.neck, self.head):
            if module is not None:
                module.init_weights()
        self.tokenizer  # noqa: B018  a missing tokenizer is an error now, not after the first batch

    def masked_tokens(
        self, image: Tensor, mask: Tensor, masked: Masked | None = None
    ) -> dict[str, Tensor]:
        """Normalised tokens of each branch at masked positions, image by image and row by row.

        Args:
            image: (B, 3, H, W), normalised.
            mask: (B, rows, columns) or (B, N) bool.
            masked: `find_masked(mask)`, where the caller has it.

        Returns:
            'main' and, with a neck, 'aggregation': (M, D) each, M masked patches in all.
        """
        masked = masked or find_masked(mask)
        read = masked.patches + 1
        early_layer = None if self.neck is None else self.neck.early_layer
        with_cls = F.pad(read, (1, 0))  # CLS, token 0, feeds the neck
        features = self.backbone.forward_masked(image, mask, early_layer, with_cls)
        tokens = dict(main=self.backbone.norm(masked.flatten(features.tokens[:, 1:])))
        if self.neck is not None:
            norm = self.backbone.norm if self.neck.cls_pt_norm is None else self.neck.cls_pt_norm
            tokens['aggregation'] = norm(masked.flatten(self.neck(features, read)))
        return tokens

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor]:
        """What a classifier on the frozen backbone would see of whole images: ((B, D),).

        The mean patch token of the last block, normalised as a new fc_norm would.
        """
        image = (unit_float(inputs) - self.mean) / self.std
        pooled = self.backbone.forward_masked(image, None, read=slice(1, None)).tokens.mean(dim=1)
        return (F.layer_norm(pooled, pooled.shape[-1:], eps=LAYER_NORM_EPS),)

    def logits_at(
        self, image: Tensor, mask: Tensor, masked: Masked
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Logits of each branch (M, K) and target codes (M,): all that a step computes, without a
        look at values, so that it compiles to one graph where ``masked.valid`` is None.

        Args:
            image: (B, 3, H, W) in [0, 1].
            mask: (B, rows, columns) or (B, N) bool.
            masked: `find_masked(mask)`.
        """
        codes = masked.flatten(self.tokenizer.get_codes(image, masked.patches))
        tokens = self.masked_tokens((image - self.mean) / self.std, mask, masked)
        return self.head(**tokens), codes

    def logits_and_codes(
        self, inputs: Tensor, data_samples: list
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Logits of each branch (M, K), target codes (M,) and the mask (B, N)."""
        image = unit_float(inputs)
        mask = torch.stack([sample.mask for sample in data_samples]).to(image.device).bool()
        rows, columns = patch_grid(image.shape[2:], self.tokenizer.encoder.patch_size)
        if mask.shape[1:] not in ((rows, columns), (rows * columns,)):
            raise ValueError(
                f'The tokenizer gives {rows} x {columns} codes an image, but masks are '
                f'{tuple(mask.shape[1:])}: backbone, tokenizer and mask need one patch grid.'
            )
        logits, codes = self.logits_at(image, mask, find_masked(mask))
        return logits, codes, mask.flatten(1)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Loss and accuracy of each branch."""
        logits, codes, _ = self.logits_and_codes(inputs, data_samples)
        return self.head.loss(logits, codes)

    def predict(self, inputs: Tensor, data_samples: list) -> list:
        """Writes ``accuracy_main`` (and ``accuracy_aggregation``) of each image into its sample."""
        logits, codes, mask = self.logits_and_codes(inputs, data_samples)
        counts = mask.sum(dim=1).tolist()
        for branch, scores in logits.items():
            correct = (scores.argmax(dim=1) == codes).float().split(counts)
            for sample, values in zip(data_samples, correct, strict=True):
                sample.set_field(values.mean(), f'accuracy_{branch}')
        return data_samples

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'
    ) -> dict[str, Tensor] | list | tuple[Tensor, ...]:
        """'tensor' gives the backbone's outputs for unmasked images, the others their method's."""
        if mode == 'tensor':
            return self.backbone((unit_float(inputs) - self.mean) / self.std)
        if mode == 'loss':
            return self.loss(inputs, data_samples or [])
        if mode == 'predict':
            return self.predict(inputs, data_samples or [])
        raise ValueError(f"mode is 'tensor', 'loss' or 'predict', but {mode!r} was given.")
