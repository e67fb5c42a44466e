"""Teacher of the tokenizer: images in [0, 1] (B, C, H, W) -> patch features (B, N, Dt)."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import timm
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from beitv2_mm.checkpoint import Source, read
from beitv2_mm.layers.position import Grid
from beitv2_mm.registry import MODELS


@MODELS.register_module()
class TimmTeacher(BaseModule):
    """Patch features of any timm network, frozen (paper section 2.2: CLIP or DINO ViT-B/16).

    The features of a plain transformer are its normalised patch tokens. The features of a
    convolutional or hierarchical network (Swin) are its last feature map of at most ``stride``.
    Both are resampled to the grid of the tokens if theirs differs.

    Args:
        model: timm name, e.g. 'vit_base_patch16_clip_quickgelu_224.openai' or
            'vit_base_patch16_224.dino'.
        checkpoint: local file (or state dict) in any layout that timm reads for this model; None
            takes timm's hub weights.
        projection: apply the network's linear head to every patch token (CLIP's 512-d space).
        stride: pixels of the teacher's image for one cell of a convolutional feature map.
        input_size: side in pixels of the square image that the teacher receives; None for the
            model's default.
        mean, std: normalisation of the [0, 1] image; None for the model's default.
        resample: whether the feature grid may differ from the grid of the tokens.
        channels: channels of the image that the teacher receives as its red, green and blue, e.g.
            (0, 1, 2); None if it receives all.
        model_kwargs: more arguments of ``timm.create_model``.

    Raises:
        ValueError: timm has no such model, or the model has no head to project with.
        RuntimeError: the checkpoint belongs to another network.
    """

    mean: Tensor
    std: Tensor
    channels: Tensor | None

    def __init__(
        self,
        model: str,
        checkpoint: Source | None = None,
        projection: bool = False,
        stride: int = 16,
        input_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resample: bool = True,
        model_kwargs: dict[str, Any] | None = None,
        channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not timm.is_model(model):
            alike = get_close_matches(model.split('.')[0], timm.list_models(), n=8, cutoff=0.4)
            raise ValueError(
                f'timm {timm.__version__} knows no model {model!r}. Names alike: {alike}; all of '
                'them: timm.list_models().'
            )
        kwargs = dict(model_kwargs or {})
        if checkpoint is not None:
            # Without num_classes, timm drops a head whose size differs from its hub weights.
            head = {key: kwargs[key] for key in ('num_classes',) if key in kwargs}
            kwargs['pretrained_cfg_overlay'] = dict(state_dict=read(checkpoint), **head)
        with torch.device('meta'):  # without weights, only to find the kind of network
            probe = timm.create_model(model, pretrained=False, **(model_kwargs or {}))
        self.is_transformer = hasattr(probe, 'num_prefix_tokens')
        if not self.is_transformer:  # built up to the last stage that is needed
            info = timm.create_model(model, features_only=True, pretrained=False).feature_info
            stages = [i for i, r in enumerate(info.reduction()) if r <= stride] or [0]
            if checkpoint is not None:
                # For a truncated network timm accepts any weights silently, so try the whole one.
                timm.create_model(model, pretrained=True, **kwargs)
            kwargs.update(features_only=True, out_indices=(stages[-1],))
        elif input_size is not None:
            kwargs['img_size'] = input_size
        self.network = timm.create_model(model, pretrained=True, **kwargs)
        if projection and not (self.is_transformer and self.network.num_classes):
            raise ValueError(f'{model} has no linear head to project patch tokens with.')
        if not self.is_transformer:  # makes depthwise convolutions four times as fast on CPUs
            self.network.to(memory_format=torch.channels_last)
        config = self.network.pretrained_cfg
        self.name = model
        self.projection = projection
        self.resample = resample
        self.input_size = input_size or (model_kwargs or {}).get(
            'img_size', config['input_size'][-1]
        )
        self.register_buffer('mean', torch.tensor(mean or config['mean']).view(1, -1, 1, 1))
        self.register_buffer('std', torch.tensor(std or config['std']).view(1, -1, 1, 1))
        seen = None if channels is None else torch.tensor(channels)
        self.register_buffer('channels', seen, persistent=False)
        if seen is not None and len(seen) != self.mean.shape[1]:
            raise ValueError(
                f'{model} sees {self.mean.shape[1]} channels, but channels={tuple(channels or ())} '
                f'names {len(seen)}; one may be named more than once.'
            )

    @torch.no_grad()
    def forward(self, image: Tensor, grid: Grid) -> Tensor:
        """`features`, without a gradient."""
        return self.features(image, grid)

    def features(self, image: Tensor, grid: Grid) -> Tensor:
        """Features for a token grid (rows, columns): (B, rows * columns, Dt).

        The gradient reaches the image.

        Raises:
            ValueError: the teacher's grid differs and ``resample`` is off, or the number of
                channels of the image is not the teacher's.
        """
        if self.channels is not None:
            image = image.index_select(1, self.channels)
        elif image.shape[1] != self.mean.shape[1]:
            raise ValueError(
                f'{self.name} sees {self.mean.shape[1]} channels, but the images have '
                f'{image.shape[1]}: say which, e.g. channels=(0, 1, 2) of the teacher.'
            )
        size = (self.input_size, self.input_size)
        if image.shape[-2:] != size:
            image = F.interpolate(image, size, mode='bicubic', antialias=True).clamp(0, 1)
        image = (image - self.mean) / self.std
        features = self._tokens(image) if self.is_transformer else self._map(image)
        if features.shape[-2:] != grid:
            if not self.resample:
                raise ValueError(
                    f'{self.name} gives a grid of {features.shape[-2]} x {features.shape[-1]} '
                    f'at {self.input_size} pixels, but the tokens lie on {grid[0]} x {grid[1]}. '
                    'Change input_size, or allow resample=True.'
                )
            if features.shape[-2] >= grid[0] and features.shape[-1] >= grid[1]:
                features = F.adaptive_avg_pool2d(features, grid)
            else:
                features = F.interpolate(features, grid, mode='bilinear')
        return features.flatten(2).transpose(1, 2)  # (B, N, Dt)

    def _map(self, image: Tensor) -> Tensor:
        """Last feature map of a convolutional or hierarchical network: (B, Dt, rows, columns)."""
        features, width = self.network(image)[-1], self.network.feature_info.channels()[-1]
        if features.ndim == 4 and features.shape[1] == width:
            return features  # (B, Dt, rows, columns)
        if features.ndim == 4 and features.shape[-1] == width:  # Swin and similar networks
            return features.permute(0, 3, 1, 2)  # (B, Dt, rows, columns)
        raise ValueError(
            f'{self.name} gives {tuple(features.shape)} where a map of {width} channels was '
            'expected: it cannot be a teacher.'
        )

    def _tokens(self, image: Tensor) -> Tensor:
        """Patch tokens of a plain transformer as a map: (B, Dt, rows, columns)."""
        tokens = self.network.forward_features(image)[:, self.network.num_prefix_tokens :]
        if self.projection:
            tokens = self.network.head(tokens)
        patch = self.network.patch_embed.patch_size
        rows, columns = image.shape[-2] // patch[0], image.shape[-1] // patch[1]
        return tokens.transpose(1, 2).unflatten(2, (rows, columns))  # (B, Dt, rows, columns)
