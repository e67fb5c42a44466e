"""Masked image modelling: images in [0, 1] (B, C, H, W) and masks -> losses (paper section 2.3)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beitv2_mm.layers.block import LAYER_NORM_EPS
from beitv2_mm.models.base import Config, InitCfg, PretrainedModel
from beitv2_mm.models.data_preprocessor import (
    Masked,
    MaskedImagePreprocessor,
    find_masked,
    stack_masks,
)
from beitv2_mm.models.frozen import Frozen
from beitv2_mm.models.mim_head import IGNORED
from beitv2_mm.models.tokenizer import VQKDTokenizer, unit_float
from beitv2_mm.registry import MODELS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _build_tokenizer(config: Config, num_codes: int) -> nn.Module:
    tokenizer = MODELS.build({'type': VQKDTokenizer, **config})
    if tokenizer.quantize.num_codes != num_codes:
        raise ValueError(
            f'The tokenizer has {tokenizer.quantize.num_codes} codes, but the head predicts '
            f'{num_codes}: set num_codes of the head to the first number.'
        )
    tokenizer.init_weights()
    return tokenizer


@MODELS.register_module()
class BEiTV2Pretrainer(PretrainedModel):
    """Trains backbone, aggregation neck and head to predict the codes of a frozen tokenizer.

    Backbone and tokenizer receive the same view. The pretrainer normalises it with ``mean`` and
    ``std`` for the backbone; the tokenizer has a normalisation of its own. The tokenizer is always
    in eval mode and is in no checkpoint.

    Args:
        backbone: config of a `BEiTV2Backbone` with ``with_mask_token`` and a final norm.
        head: config of a `MIMHead`; ``embed_dims`` is the backbone's unless given.
        tokenizer: config of a `VQKDTokenizer`, whose ``init_cfg`` names the trained weights.
        neck: config of a `PatchAggregationNeck`; ``arch`` is the backbone's unless given. None
            trains without aggregation, as BEiT v1 does.
        mean, std: normalisation of the backbone's images in [0, 1], one value for each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Config,
        head: Config,
        tokenizer: Config,
        neck: Config | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        data_preprocessor: Config | nn.Module | None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        channels = backbone.get('in_channels', 3)
        if not len(mean) == len(std) == channels:
            raise ValueError(
                f"The backbone's images have {channels} channels (in_channels), but mean has "
                f'{len(mean)} values and std {len(std)}: give one for each channel, for pixels in '
                '[0, 1].'
            )
        usual = dict(type=MaskedImagePreprocessor, channels=channels)
        super().__init__(data_preprocessor or usual, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = None
        if neck is not None:
            self.neck = MODELS.build({'arch': self.backbone.arch, **neck})
        self.head = MODELS.build({'embed_dims': self.backbone.embed_dims, **head})
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
        self._tokenizer = Frozen(partial(_build_tokenizer, tokenizer, self.head.num_codes))
        self.register_buffer('mean', torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    @property
    def tokenizer(self) -> nn.Module:
        """The frozen tokenizer; it is built on first use."""
        return self._tokenizer.like(self.mean)

    def reset_parameters(self) -> None:
        for module in (self.backbone, self.neck, self.head):
            if module is not None:
                module.init_weights()
        self.tokenizer  # noqa: B018  built now, so that missing weights are reported at the start

    def masked_tokens(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Tokens of each branch, as `tokens_at` returns them, but without padding.

        Args:
            image: (B, C, H, W), normalised.
            mask: (B, rows, columns) or (B, N) bool.

        Returns:
            One row for every masked patch of the batch: (patches, D) for each branch.
        """
        masked = find_masked(mask)
        tokens = self.tokens_at(image, masked)
        if masked.valid is None:
            return tokens
        return {branch: x[masked.valid.flatten()] for branch, x in tokens.items()}

    def tokens_at(self, image: Tensor, masked: Masked) -> dict[str, Tensor]:
        """Normalised tokens of each branch at masked positions, image by image and row by row.

        Args:
            image: (B, C, H, W), normalised.

        Returns:
            'main' and, with a neck, 'aggregation': (B * M, D) each, including the padding.
        """
        queries = masked.patches + 1  # (B, M); token 0 is CLS
        with_cls = F.pad(queries, (1, 0))  # (B, 1 + M); the neck needs CLS
        layers = () if self.neck is None else (self.neck.early_layer,)
        features = self.backbone.forward_features(image, masked.mask, with_cls, layers)
        tokens = dict(main=self.backbone.norm(features.tokens[:, 1:].flatten(0, 1)))
        if self.neck is not None:
            norm = self.backbone.norm if self.neck.cls_pt_norm is None else self.neck.cls_pt_norm
            tokens['aggregation'] = norm(self.neck(features, queries).flatten(0, 1))
        return tokens

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor]:
        """Features of unmasked images for a classifier on the frozen backbone: ((B, D),).

        The feature is the mean patch token of the last block, normalised as by a new fc_norm.
        """
        image = self.normalize(inputs)
        patches = self.backbone.forward_features(image, queries=slice(1, None)).tokens
        pooled = patches.mean(dim=1)  # (B, D)
        return (F.layer_norm(pooled, pooled.shape[-1:], eps=LAYER_NORM_EPS),)

    def normalize(self, image: Tensor) -> Tensor:
        """Normalises images in [0, 1] or bytes for the backbone: (B, C, H, W) -> the same."""
        return (unit_float(image) - self.mean) / self.std

    def logits_at(self, image: Tensor, masked: Masked) -> tuple[dict[str, Tensor], Tensor]:
        """Logits of each branch (B * M, K) and target codes (B * M,).

        Args:
            image: (B, C, H, W) in [0, 1].
            masked: its padding gets the code `IGNORED`.
        """
        return self._predict_codes(image, masked)

    def _predict_codes(self, image: Tensor, masked: Masked) -> tuple[dict[str, Tensor], Tensor]:
        # `logits_at` and `losses_at` are compiled separately, so neither calls the other.
        codes = self.tokenizer.get_codes(image, masked.patches)
        if masked.valid is not None:
            codes = codes.masked_fill(~masked.valid, IGNORED)
        return self.head(**self.tokens_at(self.normalize(image), masked)), codes.flatten()

    def losses_at(self, image: Tensor, masked: Masked) -> dict[str, Tensor]:
        """Loss and accuracy of each branch, from images in [0, 1] (B, C, H, W).

        This is the whole computation of a training step. Its control flow does not depend on
        tensor values, so it compiles to one graph.
        """
        losses: dict[str, Tensor] = self.head.loss(*self._predict_codes(image, masked))
        return losses

    def _prepare(
        self, inputs: Tensor, data_samples: Sequence[Any], masked: Masked | None
    ) -> tuple[Tensor, Masked]:
        """Converts images to [0, 1], finds the masked patches and checks that the grids agree."""
        image = unit_float(inputs)
        if masked is None:  # the data preprocessor is not `MaskedImagePreprocessor`
            masked = find_masked(stack_masks(data_samples)).to(image.device)
        rows, columns = self.tokenizer.grid_of(image)
        shape = masked.mask.shape[1:]
        if shape not in ((rows, columns), (rows * columns,)):
            raise ValueError(
                f'The tokenizer gives {rows} x {columns} codes an image, but masks are '
                f'{tuple(shape)}: backbone, tokenizer and mask need one patch grid.'
            )
        return image, masked

    def loss(
        self, inputs: Tensor, data_samples: Sequence[Any] = (), masked: Masked | None = None
    ) -> dict[str, Tensor]:
        """Loss and accuracy of each branch; without ``masked``, the data samples hold the masks."""
        return self.losses_at(*self._prepare(inputs, data_samples, masked))

    def predict(
        self, inputs: Tensor, data_samples: list[Any], masked: Masked | None = None
    ) -> list[Any]:
        """Writes the accuracy and the distribution of the codes into each data sample.

        These are ``accuracy_main`` and, with a neck, ``accuracy_aggregation``, in percent, and
        ``code_shares`` (K,), the percentage of the masked patches that have each code.
        """
        image, masked = self._prepare(inputs, data_samples, masked)
        logits, codes = self.logits_at(image, masked)
        known = (codes != IGNORED).view_as(masked.patches)
        counts = known.sum(dim=1)
        shares = torch.zeros(len(known), self.head.num_codes, device=codes.device)
        weights = 100 * known / counts[:, None]
        shares.scatter_add_(1, codes.clamp(min=0).view_as(known), weights)  # 0 for padding
        for sample, share in zip(data_samples, shares, strict=True):
            sample.set_field(share, 'code_shares')
        for branch, scores in logits.items():
            correct = (scores.argmax(dim=1) == codes).view_as(masked.patches).sum(dim=1)
            for sample, value in zip(data_samples, 100 * correct / counts, strict=True):
                sample.set_field(value, f'accuracy_{branch}')
        return data_samples

    def plain_forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The backbone's outputs for unmasked images (B, C, H, W), in [0, 1] or uint8."""
        outputs: tuple[Tensor, ...] = self.backbone(self.normalize(inputs))
        return outputs
