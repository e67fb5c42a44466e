"""Pixels from codes: (B, rows, columns) -> images (B, C, H, W) in [0, 1]."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beitv2_mm.generation.codebook import OnCodes
from beitv2_mm.generation.patch_discriminator import PatchDiscriminator
from beitv2_mm.layers.vision_transformer import to_pair
from beitv2_mm.models.base import Config, InitCfg
from beitv2_mm.models.frozen import Frozen
from beitv2_mm.models.tokenizer import unit_float
from beitv2_mm.registry import MODELS


class PixelHead(nn.Module):
    """Tokens (B, N, D) of a grid -> images: a patch of ``width`` channels from each token, and
    convolutions that see over the borders of patches."""

    def __init__(self, dims: int, patch_size: tuple[int, int], width: int, channels: int) -> None:
        super().__init__()
        self.patch_size, self.width = patch_size, width
        self.patches = nn.Linear(dims, patch_size[0] * patch_size[1] * width)
        self.convs = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, channels, 3, padding=1),
        ).to(memory_format=torch.channels_last)  # a quarter faster on a CPU, and what GPUs like

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        (rows, columns), (height, width) = grid, self.patch_size
        x = self.patches(tokens).view(-1, rows, columns, height, width, self.width)
        x = x.permute(0, 5, 1, 3, 2, 4)  # (B, width, rows, height, columns, width of a patch)
        return self.convs(x.reshape(len(x), self.width, rows * height, columns * width))


@MODELS.register_module()
class PixelDecoder(OnCodes):
    """Learns to paint images from the codes of a frozen tokenizer, so it shows what they keep.

    The losses are those of VQGAN (Esser et al., 2021, section 3.1) on fixed codes: L1, a perceptual
    loss, which is one minus the cosine of a teacher's patch features, and the hinge loss of a patch
    discriminator.

    Args:
        tokenizer, backbone: see `OnCodes`.
        width: channels of the convolutions that follow.
        teacher: config of a `TimmTeacher` for the perceptual loss; None for none.
        discriminator: arguments of `PatchDiscriminator`; None for none.
        perceptual_weight, adversarial_weight: of their losses; that of L1 is 1.
        adversarial_start: training steps before the discriminator has a say.
    """

    steps: Tensor

    def __init__(
        self,
        tokenizer: Config,
        backbone: Config,
        width: int = 32,
        teacher: Config | None = None,
        discriminator: Config | None = None,
        perceptual_weight: float = 1.0,
        adversarial_weight: float = 0.1,
        adversarial_start: int = 0,
        data_preprocessor: Config | nn.Module | None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(tokenizer, backbone, data_preprocessor, init_cfg)
        encoder = tokenizer['encoder']
        channels = encoder.get('in_channels', 3)
        patch_size = to_pair(encoder.get('patch_size', 16))
        self.head = PixelHead(self.backbone.embed_dims, patch_size, width, channels)
        self._teacher = Frozen.of(teacher) if teacher is not None else None
        self.discriminator = None
        if discriminator is not None:
            self.discriminator = PatchDiscriminator(**{'channels': channels, **discriminator})
        self.perceptual_weight = perceptual_weight
        self.adversarial_weight = adversarial_weight
        self.adversarial_start = adversarial_start
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))

    def reset_parameters(self) -> None:
        self.backbone.init_weights()
        for layer in (self.head, self.discriminator):
            for module in layer.modules() if layer is not None else ():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.reset_parameters()
        nn.init.constant_(self.head.convs[-1].bias, 0.5)  # grey
        self.mark_codebook()

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, rows, columns) -> images (B, C, H, W), not yet clamped to [0, 1]."""
        return self.from_vectors(self.vectors(codes))

    def from_vectors(self, vectors: Tensor) -> Tensor:
        """The part of `decode` that is compiled, from vectors (B, d, rows, columns)."""
        tokens = self.backbone.forward_patches(vectors)
        return self.head(tokens, (vectors.shape[2], vectors.shape[3]))

    def paint(self, codes: Tensor) -> Tensor:
        """Codes (B, rows, columns) -> images (B, C, H, W) in [0, 1], of single precision."""
        return self.decode(codes).float().clamp(0, 1)

    def loss(self, inputs: Tensor, data_samples: Sequence[Any] = ()) -> dict[str, Tensor]:
        """The losses that are trained, and the PSNR in decibels for the log."""
        image = unit_float(inputs)
        codes = self.codes(image)
        made = self.decode(codes).float()
        losses = dict(loss_l1=F.l1_loss(made, image))
        if self._teacher is not None:
            teacher = self._teacher.like(image)
            grid = codes.shape[1], codes.shape[2]
            with torch.no_grad():
                wanted = teacher.features(image, grid)
            alike = F.cosine_similarity(teacher.features(made, grid).float(), wanted.float(), -1)
            losses['loss_perceptual'] = self.perceptual_weight * (1 - alike).mean()
        if self.discriminator is not None:
            adversarial, own = self.discriminator.losses(image, made)
            has_say = self.adversarial_weight * (self.steps >= self.adversarial_start)
            losses['loss_adversarial'] = has_say * adversarial
            losses['loss_discriminator'] = own
            self.steps += 1
        error = F.mse_loss(made.detach().clamp(0, 1), image)
        losses['psnr'] = -10 * error.clamp(min=1e-10).log10()
        return losses

    def predict(self, inputs: Tensor, data_samples: list[Any]) -> list[Any]:
        """Writes into each data sample ``image`` and ``decoded``, (C, H, W) in [0, 1]."""
        image = unit_float(inputs)
        decoded = self.paint(self.codes(image))
        for sample, *pair in zip(data_samples, image, decoded, strict=True):
            for name, value in zip(('image', 'decoded'), pair, strict=True):
                sample.set_field(value, name)
        return data_samples

    def plain_forward(self, inputs: Tensor) -> Tensor:
        """What is decoded from the codes of images, in [0, 1]."""
        return self.paint(self.codes(inputs))
