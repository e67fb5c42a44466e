"""VQ-KD visual tokenizer: images in [0, 1] (B, C, H, W) -> codes (B, N) (paper section 2.2)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beitv2_mm.layers import Quantized, Standardize, VectorQuantizer, patch_grid
from beitv2_mm.layers.position import Grid
from beitv2_mm.models.backbone import BEiTV2Backbone
from beitv2_mm.models.base import Config, InitCfg, PretrainedModel
from beitv2_mm.models.data_preprocessor import UnitRGBPreprocessor
from beitv2_mm.models.frozen import Frozen
from beitv2_mm.registry import MODELS


def _task_layer(in_dims: int, out_dims: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dims, in_dims), nn.Tanh(), nn.Linear(in_dims, out_dims))


def unit_float(image: Tensor) -> Tensor:
    """Converts bytes to floats in [0, 1]; floats must be in [0, 1] already and are not scaled."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


@MODELS.register_module()
class VQKDTokenizer(PretrainedModel):
    """Encoder, quantizer and decoder that regress a frozen teacher's patch features.

    Only training needs the teacher: it is built for the first loss and is in no checkpoint.

    Args:
        encoder: config of a `BEiTV2Backbone`; by default with absolute positions and no layer
            scale.
        decoder: the same; it runs on the encoder's grid with patch size 1.
        quantizer: arguments of `VectorQuantizer`.
        target_dims: width of the teacher's features.
        teacher: config of a `TimmTeacher`; None for a tokenizer that is not trained.
        standardize_target: whether every channel of the teacher is standardised, in training with
            the statistics of the batch over all ranks and in evaluation with their average. The
            paper does not do this; it helps with teachers whose channels are all positive, such
            as convolutional networks.
    """

    def __init__(
        self,
        encoder: Config,
        decoder: Config,
        quantizer: Config | None = None,
        target_dims: int = 512,
        teacher: Config | None = None,
        standardize_target: bool = False,
        data_preprocessor: Config | nn.Module | None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        usual = dict(type=UnitRGBPreprocessor, channels=encoder.get('in_channels', 3))
        super().__init__(data_preprocessor or usual, init_cfg)
        plain = dict(type=BEiTV2Backbone, position='absolute', layer_scale_init_value=0.0)
        self.quantize = VectorQuantizer(**(quantizer or {}))
        self.encoder = MODELS.build({**plain, **encoder})
        decoder = {'img_size': self.encoder.grid, **decoder}
        self.decoder = MODELS.build(
            {**plain, **decoder, 'patch_size': 1, 'in_channels': self.quantize.dim}
        )
        self.encode_task_layer = _task_layer(self.encoder.embed_dims, self.quantize.dim)
        self.decode_task_layer = _task_layer(self.decoder.embed_dims, target_dims)
        self.target_dims = target_dims
        self.target_norm = Standardize(target_dims) if standardize_target else None
        self._teacher = Frozen.of(teacher) if teacher is not None else None

    def reset_parameters(self) -> None:
        self.encoder.init_weights()
        self.decoder.init_weights()
        for layer in (*self.encode_task_layer, *self.decode_task_layer):
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def encode(self, image: Tensor, patches: Tensor | None = None) -> Tensor:
        """Latents of the quantizer, not normalised; they are fp32 under autocast, too.

        (B, C, H, W) in [0, 1] or uint8 -> (B, N, d), or (B, M, d) for only the ``patches`` (B, M).
        """
        tokens = self.encoder.forward_patches(unit_float(image) * 2 - 1, patches)
        layer = self.encode_task_layer
        with torch.autocast(image.device.type, enabled=False):
            return layer(tokens.to(layer[0].weight.dtype))

    @torch.no_grad()
    def get_codes(self, image: Tensor, patches: Tensor | None = None) -> Tensor:
        """Codes of the patches, row by row.

        (B, C, H, W) in [0, 1] or uint8 -> (B, N), or (B, M) for only the ``patches`` (B, M).
        """
        return self.quantize.encode(self.encode(image, patches))

    def grid_of(self, image: Tensor) -> Grid:
        """(rows, columns) of the patches of images (B, C, H, W)."""
        return patch_grid(image.shape[-2:], self.encoder.patch_size)

    def decode(self, quantized: Tensor, grid: Grid) -> Tensor:
        """Predicted teacher features: (B, N, d) -> (B, N, target_dims)."""
        patches = quantized.transpose(1, 2).unflatten(2, grid)  # (B, d, rows, columns)
        return self.decode_task_layer(self.decoder.forward_patches(patches))

    def target(self, image: Tensor, grid: Grid) -> Tensor:
        """The teacher's features for images in [0, 1]: (B, N, target_dims)."""
        if self._teacher is None:
            raise ValueError(
                'This tokenizer was built without a teacher, so it can give codes but no loss. Set '
                'teacher=dict(type=TimmTeacher, model=...).'
            )
        target = self._teacher.like(self.quantize.cluster_size)(image, grid)
        if target.shape[-1] != self.target_dims:
            raise ValueError(
                f'The teacher gives {target.shape[-1]} features a patch, but target_dims is '
                f'{self.target_dims}.'
            )
        if self.target_norm is not None:
            target = self.target_norm(target.flatten(0, 1).float()).view_as(target)
        return target

    def distill(self, image: Tensor) -> tuple[Quantized, Tensor, Tensor]:
        """Encodes, quantizes and decodes images, and compares the result with the teacher.

        Returns:
            The quantizer's result, the cosine similarity of every patch (B, N), and the teacher's
            features in fp32 (B, N, target_dims).
        """
        image = unit_float(image)
        grid = self.grid_of(image)
        quantized = self.quantize(self.encode(image))
        prediction = self.decode(quantized.quantized, grid)
        target = self.target(image, grid).float()
        return quantized, F.cosine_similarity(prediction.float(), target, dim=-1), target

    def loss(self, inputs: Tensor, data_samples: Sequence[Any] = ()) -> dict[str, Tensor]:
        """Commitment and cosine loss (equation 3), and the mean cosine similarity for the log."""
        quantized, cosine, _ = self.distill(inputs)
        mean = cosine.mean()
        return dict(
            loss_commitment=quantized.commitment_loss, loss_cosine=1 - mean, cosine=mean.detach()
        )

    def predict(self, inputs: Tensor, data_samples: list[Any]) -> list[Any]:
        """Writes three results into each data sample.

        These are ``pred_codes`` (N,), ``cosine``, the mean over the image, and ``target``, the
        teacher's features as unit vectors (N, target_dims).
        """
        quantized, cosine, target = self.distill(inputs)
        columns = quantized.codes, cosine.mean(dim=1), F.normalize(target, dim=-1)
        for sample, *values in zip(data_samples, *columns, strict=True):
            for name, value in zip(('pred_codes', 'cosine', 'target'), values, strict=True):
                sample.set_field(value, name)
        return data_samples

    def plain_forward(self, inputs: Tensor) -> Tensor:
        """The codes of images: (B, C, H, W) -> (B, N)."""
        return self.get_codes(inputs)
