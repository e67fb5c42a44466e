"""Models on the codes of one tokenizer: its frozen network, and the mark of its codebook."""

import hashlib
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from beitv2_mm.checkpoint import CheckpointError
from beitv2_mm.models import VQKDTokenizer
from beitv2_mm.models.base import Config
from beitv2_mm.models.frozen import Frozen
from beitv2_mm.registry import MODELS


class CodebookError(CheckpointError):
    """Weights were trained on the codes of another tokenizer."""


def fingerprint(codebook: Tensor) -> Tensor:
    """The first eight bytes of the SHA-256 of a codebook (K, d), as uint8 (8,)."""
    content = codebook.detach().float().cpu().contiguous().numpy().tobytes()
    return torch.tensor(list(hashlib.sha256(content).digest()[:8]), dtype=torch.uint8)


def build_tokenizer(config: Config) -> nn.Module:
    """A tokenizer with the weights that its ``init_cfg`` names."""
    tokenizer = MODELS.build({'type': VQKDTokenizer, **config})
    tokenizer.init_weights()
    return tokenizer


class OnCodes(nn.Module):
    """Mixin of models that read or write the codes of a frozen tokenizer.

    The tokenizer is in no checkpoint, but the mark of its codebook is: weights that were trained on
    other codes are refused when they are loaded, because the same numbers would mean something
    else.

    Args:
        tokenizer: config of a `VQKDTokenizer`, whose ``init_cfg`` names the trained weights.
    """

    codebook_mark: Tensor

    def watch_codebook(self, tokenizer: Config) -> None:
        """Call it once at the end of ``__init__``."""
        self._tokenizer = Frozen(partial(build_tokenizer, tokenizer))
        self.register_buffer('codebook_mark', torch.zeros(8, dtype=torch.uint8))
        self.register_load_state_dict_post_hook(_check_codebook)

    @property
    def tokenizer(self) -> Any:
        """The frozen tokenizer; it is built on first use."""
        return self._tokenizer.like(next(self.parameters()))

    def mark_codebook(self) -> None:
        """Notes of which tokenizer the weights will be."""
        self.codebook_mark.copy_(fingerprint(self.tokenizer.quantize.embedding.weight))


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
