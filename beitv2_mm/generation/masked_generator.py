"""Masked generation (Chang et al., MaskGIT, 2022): codes and a mask -> logits (B, N, K)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beitv2_mm.checkpoint import load, read
from beitv2_mm.generation.codebook import OnCodes
from beitv2_mm.generation.pixel_decoder import PixelDecoder
from beitv2_mm.generation.sampling import checked_labels, checked_mask, sample_codes, uniform_noise
from beitv2_mm.models import MIMHead
from beitv2_mm.models.base import Config, InitCfg
from beitv2_mm.models.frozen import Frozen
from beitv2_mm.models.tokenizer import unit_float
from beitv2_mm.registry import MODELS


def _build_decoder(config: Config, tokenizer: Frozen) -> nn.Module:
    decoder = MODELS.build(config)
    decoder._tokenizer = tokenizer  # rather than another one with the same weights
    decoder.init_weights()
    return decoder


@MODELS.register_module()
class MaskedGenerator(OnCodes):
    """A bidirectional transformer that predicts masked codes of an image from the others.

    Its input are the vectors of the codebook and, added to the CLS token, one of the class. Trained
    with any share of masked codes, it paints images from nothing, or what is missing of an image.

    Args:
        tokenizer, backbone: see `OnCodes`.
        num_classes: 0 for images without classes.
        pixel_decoder: config of a `PixelDecoder`, whose ``init_cfg`` names the trained weights, for
            pictures and for their quality; without ``tokenizer``, which is this one.
        drop_class: share of the images that are trained without their class, for guidance (Ho and
            Salimans, 2022).
        label_smoothing: of the cross entropy.
        steps, guidance, temperature: of `sample` unless it is told others.
        start_from: weights of a `BEiTV2Pretrainer` on the same codes: its blocks, positions and
            head. Its patch embedding is of pixels and is left out.
    """

    def __init__(
        self,
        tokenizer: Config,
        backbone: Config,
        num_classes: int = 0,
        pixel_decoder: Config | None = None,
        drop_class: float = 0.1,
        label_smoothing: float = 0.1,
        steps: int = 8,
        guidance: float = 1.0,
        temperature: float = 4.5,
        start_from: str | None = None,
        data_preprocessor: Config | nn.Module | None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        backbone = {**backbone, 'with_mask_token': True}
        super().__init__(tokenizer, backbone, data_preprocessor, init_cfg)
        self.num_classes = num_classes
        self.class_embed = None
        if num_classes:  # the last row is for no class
            self.class_embed = nn.Embedding(num_classes + 1, self.backbone.embed_dims)
        num_codes = tokenizer.get('quantizer', {}).get('num_codes', 8192)
        self.head = MIMHead(self.backbone.embed_dims, num_codes)
        self._decoder = None
        if pixel_decoder is not None:
            whole = {'type': PixelDecoder, **pixel_decoder, 'tokenizer': tokenizer}
            self._decoder = Frozen(partial(_build_decoder, whole, self._tokenizer))
        self.drop_class = drop_class
        self.label_smoothing = label_smoothing
        self.steps, self.guidance, self.temperature = steps, guidance, temperature
        self.start_from = start_from

    def reset_parameters(self) -> None:
        self.backbone.init_weights()
        self.head.init_weights()
        if self.class_embed is not None:
            nn.init.trunc_normal_(self.class_embed.weight, std=0.02)
        self.mark_codebook()
        if self._decoder is not None:
            _ = self.pixel_decoder  # a mistake in it is not to cost a training
        if self.start_from is not None:
            given = read(self.start_from)
            load(self, {k: v for k, v in given.items() if 'patch_embed' not in k})

    @property
    def pixel_decoder(self) -> PixelDecoder:
        """The frozen pixel decoder; it is built on first use.

        Raises:
            ValueError: the config names none.
        """
        if self._decoder is None:
            raise ValueError(
                'This generator has no pixel decoder, so it gives codes but no images. Set '
                'pixel_decoder=dict(...) with the config and the weights of a PixelDecoder.'
            )
        decoder: PixelDecoder = self._decoder.like(next(self.parameters()))
        return decoder

    def logits(self, codes: Tensor, mask: Tensor, labels: Tensor | None = None) -> Tensor:
        """What may stand at each position: (B, N, K).

        Args:
            codes: (B, rows, columns).
            mask: (B, rows, columns) bool; the codes of masked positions are not seen.
            labels: (B,), ``num_classes`` for no class; None for a generator without classes.
        """
        return self.from_vectors(self.vectors(codes), mask, labels)

    def from_vectors(self, vectors: Tensor, mask: Tensor, labels: Tensor | None) -> Tensor:
        """The part of `logits` that is compiled, from vectors (B, d, rows, columns)."""
        x, grid = self.backbone.embed(vectors, mask)  # (B, 1 + N, D)
        if self.class_embed is not None:
            x = x + F.pad(self.class_embed(labels)[:, None], (0, 0, 0, x.shape[1] - 1))
        bias = self.backbone.shared_bias(grid)
        *_, x = self.backbone.iterate_blocks(x, grid, bias, slice(1, None))
        return self.head.lm_head(self.backbone.norm(x))

    def loss(self, inputs: Tensor, data_samples: Sequence[Any] = ()) -> dict[str, Tensor]:
        """Cross entropy at the masked positions, and the accuracy there in percent.

        The share of masked codes of each image is cos(pi r / 2) with a uniform r, at least one
        code (section 3.1).
        """
        codes = self.codes(inputs)
        labels = self._labels(data_samples, codes)
        if labels is not None and self.drop_class:
            dropped = torch.rand(len(codes), device=codes.device) < self.drop_class
            labels = labels.masked_fill(dropped, self.num_classes)
        share = torch.cos(torch.pi / 2 * torch.rand(len(codes), 1, device=codes.device))
        ranks = torch.rand(codes.flatten(1).shape, device=codes.device).argsort(1).argsort(1)
        mask = ranks < (share * ranks.shape[1]).ceil().clamp(min=1)
        return self._losses(codes, mask.view_as(codes), labels)

    def _losses(self, codes: Tensor, mask: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        logits = self.logits(codes, mask, labels).float().flatten(0, 1)
        codes, mask = codes.flatten(), mask.flatten()
        each = F.cross_entropy(
            logits, codes, reduction='none', label_smoothing=self.label_smoothing
        )
        count = mask.sum()
        right = (logits.detach().argmax(-1) == codes) & mask
        return dict(loss=(each * mask).sum() / count, accuracy=100 * right.sum() / count)

    @torch.no_grad()
    def sample(
        self,
        labels: Sequence[int] | Tensor | None = None,
        seeds: Sequence[int] = (0,),
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        codes: Tensor | None = None,
        mask: Tensor | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """Draws codes (B, rows, columns), one image for each seed.

        Args:
            labels: (B,) classes, ``num_classes`` for no class; None for no classes at all.
            seeds: of each image; the same seed draws the same image, in any batch.
            guidance: how much further the class counts than it would by itself; 1 is no guidance
                and costs half as much.
            temperature: see `sample_codes`.
            codes: (B, rows, columns), of which those where ``mask``, of the same shape, is True
                are drawn; None draws all.
            grid: (rows, columns) without ``codes``, by default those of training.

        Raises:
            ValueError: there is no such class, or a number or shape does not fit.
        """
        device = next(self.parameters()).device
        steps = self.steps if steps is None else steps
        guidance = self.guidance if guidance is None else guidance
        temperature = self.temperature if temperature is None else temperature
        known = checked_labels(labels, self.num_classes, len(seeds))
        known = None if known is None else known.to(device)
        if codes is None:
            grid = grid or self.backbone.grid
            codes = torch.zeros(len(seeds), *grid, dtype=torch.long, device=device)
            mask = torch.ones_like(codes, dtype=torch.bool)
        mask = checked_mask(codes, mask, len(seeds))
        grid = codes.shape[1], codes.shape[2]
        if guidance != 1 and not self.num_classes:
            raise ValueError(f'guidance={guidance} needs classes, and this generator has none.')

        def predict(codes: Tensor, mask: Tensor) -> Tensor:
            codes, mask = codes.unflatten(1, grid), mask.unflatten(1, grid)
            if guidance == 1 or known is None:
                return self.logits(codes, mask, known)
            both = torch.cat([known, torch.full_like(known, self.num_classes)])
            logits = self.logits(codes.repeat(2, 1, 1), mask.repeat(2, 1, 1), both)
            with_class, without = logits.float().chunk(2)
            return without + guidance * (with_class - without)

        noise = uniform_noise(list(seeds), max(steps, 0), codes[0].numel())
        found = sample_codes(predict, codes.flatten(1), mask.flatten(1), noise, temperature)
        return found.unflatten(1, grid)

    def _labels(self, data_samples: Sequence[Any], like: Tensor) -> Tensor | None:
        if not self.num_classes:
            return None
        if not data_samples or 'gt_label' not in data_samples[0]:
            raise ValueError(
                f'The generator has {self.num_classes} classes, but the images have none: set '
                'with_label=True in the data set, or num_classes=0 in the model.'
            )
        labels = torch.cat([sample.gt_label.view(1) for sample in data_samples])
        return labels.to(like.device, non_blocking=True)

    def predict(self, inputs: Tensor, data_samples: list[Any]) -> list[Any]:
        """Writes into each data sample ``accuracy``, in percent, at every second patch, predicted
        from the others; with a pixel decoder, ``image``, ``decoded`` (from its codes) and
        ``generated``, an image of its class by the seed ``sample_idx``: (C, H, W) in [0, 1]."""
        codes = self.codes(inputs)
        labels = self._labels(data_samples, codes)
        grid = codes.shape[1], codes.shape[2]
        checks = torch.arange(grid[0])[:, None] + torch.arange(grid[1])
        mask = (checks % 2 == 0).to(codes.device).expand_as(codes)
        found = self.logits(codes, mask, labels).argmax(-1).view_as(codes)
        fields = dict(accuracy=100 * ((found == codes) & mask).sum((1, 2)) / mask.sum((1, 2)))
        if self._decoder is not None:
            seeds = [int(sample.get('sample_idx', i)) for i, sample in enumerate(data_samples)]
            known = None if labels is None else [int(s.gt_label) for s in data_samples]
            fields['image'] = unit_float(inputs)
            fields['decoded'] = self.paint(codes)
            fields['generated'] = self.paint(self.sample(known, seeds, grid=grid))
        for i, sample in enumerate(data_samples):
            for name, values in fields.items():
                sample.set_field(values[i], name)
        return data_samples

    @torch.no_grad()
    def paint(self, codes: Tensor) -> Tensor:
        """Codes (B, rows, columns) -> images (B, C, H, W) in [0, 1], by the pixel decoder."""
        return self.pixel_decoder.paint(codes)

    def plain_forward(self, inputs: Tensor) -> Tensor:
        """The codes of images: (B, C, H, W) -> (B, rows, columns)."""
        return self.codes(inputs)
