"""Models on the codes of one tokenizer: a backbone on its vectors, and the mark of its codebook."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from beitv2_mm.checkpoint import CheckpointError
from beitv2_mm.layers.vision_transformer import patch_grid
from beitv2_mm.models import BEiTV2Backbone, VQKDTokenizer
from beitv2_mm.models.base import Config, InitCfg, PretrainedModel
from beitv2_mm.models.data_preprocessor import UnitRGBPreprocessor
from beitv2_mm.models.frozen import Frozen
from beitv2_mm.registry import MODELS


class CodebookError(CheckpointError):
    """Weights were trained on the codes of another tokenizer."""


def fingerprint(codebook: Tensor) -> Tensor:
    """The first eight bytes of the SHA-256 of a codebook (K, d), as uint8 (8,)."""
    content = codebook.detach().float().cpu().contiguous().numpy().tobytes()
    return torch.tensor(list(hashlib.sha256(content).digest()[:8]), dtype=torch.uint8)


class OnCodes(PretrainedModel):
    """Base of models that read or write the codes of a frozen tokenizer, with a backbone on them.

    The tokenizer is in no checkpoint, but the mark of its codebook is: weights that were trained on
    other codes are refused when they are loaded, because the same numbers would mean something
    else.

    Args:
        tokenizer: config of a `VQKDTokenizer`, whose ``init_cfg`` names the trained weights.
        backbone: config of a `BEiTV2Backbone` that runs on the grid of codes, with shared positions
            unless it says otherwise.
    """

    codebook_mark: Tensor

    def __init__(
        self,
        tokenizer: Config,
        backbone: Config,
        data_preprocessor: Config | nn.Module | None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        encoder = tokenizer['encoder']
        usual = dict(type=UnitRGBPreprocessor, channels=encoder.get('in_channels', 3))
        super().__init__(data_preprocessor or usual, init_cfg)
        plain = dict(
            type=BEiTV2Backbone,
            img_size=patch_grid(encoder.get('img_size', 224), encoder.get('patch_size', 16)),
            position='shared',
            out_type='raw',
        )
        dim = tokenizer.get('quantizer', {}).get('dim', 32)
        self.backbone = MODELS.build({**plain, **backbone, 'patch_size': 1, 'in_channels': dim})
        self._tokenizer = Frozen.trained({'type': VQKDTokenizer, **tokenizer})
        self.register_buffer('codebook_mark', torch.zeros(8, dtype=torch.uint8))
        self.register_load_state_dict_post_hook(_check_codebook)

    @property
    def tokenizer(self) -> Any:
        """The frozen tokenizer; it is built on first use."""
        return self._tokenizer.like(next(self.parameters()))

    def mark_codebook(self) -> None:
        """Notes of which tokenizer the weights will be."""
        self.codebook_mark.copy_(fingerprint(self.tokenizer.quantize.embedding.weight))

    def codes(self, images: Tensor) -> Tensor:
        """The codes of the patches: (B, C, H, W) in [0, 1] or uint8 -> (B, rows, columns)."""
        tokenizer = self.tokenizer
        return tokenizer.get_codes(images).unflatten(1, tokenizer.grid_of(images))

    def vectors(self, codes: Tensor) -> Tensor:
        """What the backbone reads: codes (B, rows, columns) -> (B, d, rows, columns)."""
        return self.tokenizer.quantize.decode(codes).movedim(-1, 1)


def _check_codebook(module: nn.Module, incompatible: Any) -> None:
    """Compares the mark that was loaded with the tokenizer at hand.

    Raises:
        CodebookError: they differ.
    """
    assert isinstance(module, OnCodes)
    loaded = module.codebook_mark.cpu()
    if bool(loaded.any()):
        own = fingerprint(module.tokenizer.quantize.embedding.weight)
        if not torch.equal(loaded, own):
            raise CodebookError(
                f'These weights of {type(module).__name__} were trained on the codes of another '
                f'tokenizer (its codebook is {_hex(loaded)}, here it is {_hex(own)}): give that '
                'tokenizer, or train again on this one.'
            )


def _hex(mark: Tensor) -> str:
    return bytes(mark.tolist()).hex()
