"""Names and checkpoints of any kind -> transformers to look into."""

import logging
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from beitv2_mm.apis.zoo import list_models, model_info, unknown_model
from beitv2_mm.checkpoint import SHARED_TABLE, CheckpointError, kind_of, load, read, to_official
from beitv2_mm.checkpoint.network import network_in
from beitv2_mm.layers import VisionTransformer
from beitv2_mm.layers.vision_transformer import Position, Size, patch_grid, to_pair
from beitv2_mm.models import ARCHS, BEiTV2Backbone
from beitv2_mm.models.pretrainer import IMAGENET_MEAN, IMAGENET_STD

OFFICIAL = re.compile(
    r'beit(?:v2)?_(?P<arch>base|large)_patch(?P<patch>\d+)_\d+(?P<vocabulary>_8k_vocab)?(?:_cls_pt)?'
)
OFFICIAL_NAMES = tuple(
    f'beit_{arch}_patch16_{rest}'
    for arch in ('base', 'large')
    for rest in ('224', '384', '224_8k_vocab', '224_8k_vocab_cls_pt')
)
BLOCK_TABLE = 'blocks.0.attn.relative_position_bias_table'


class AttentionModel(NamedTuple):
    """A transformer in eval mode and what its images are normalised with."""

    transformer: VisionTransformer
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]  # of its images: height, width
    name: str
    is_random: bool

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return patch_grid(self.size, self.transformer.patch_size)


def build_attention_model(
    model: str,
    weights: str | PathLike | None = None,
    input_size: Size | None = None,
    patch_size: int | None = None,
    checkpoint_key: str | None = None,
    disable_rel_pos_bias: bool = False,
    abs_pos_emb: bool = False,
    layer_scale_init_value: float | None = None,
) -> AttentionModel:
    """The transformer of any model, its positions resized to the input.

    The weights, where there are any, decide which positions it has and whether it has layer scale.
    The encoder of a tokenizer is such a transformer, too.

    Args:
        model: an official name, a name of `list_models`, an arch, or a config file.
        weights: file or URL of any layout; 'published' for those of a name of `list_models`; None
            for random ones.
        input_size: pixels; None for 30 patches a side (480 for patches of 16).
        patch_size: None for the model's own.
        checkpoint_key: where in the file the weights are; None looks for them.
        disable_rel_pos_bias: leave the relative position bias out.
        abs_pos_emb: insist on an absolute position embedding.
        layer_scale_init_value: of random weights; 0 for none.

    Raises:
        ValueError: unknown name, or a size that the patch size does not divide.
        CheckpointError: unreadable weights, or of another architecture.
    """
    settings = _settings(model)
    size = _choose_size(settings, input_size, patch_size)
    if weights is not None and str(weights) == 'published':
        weights = model_info(model).weights
    tensors, prefix = None, None
    if weights is None:
        if abs_pos_emb:
            settings['position'] = 'absolute'
        if layer_scale_init_value is not None:
            settings['layer_scale_init_value'] = layer_scale_init_value
        is_tokenizer = settings.get('position') == 'absolute'
    else:
        tensors = network_in(_read(str(weights), checkpoint_key)).tensors
        official = to_official(tensors)
        is_tokenizer = kind_of(official) == 'tokenizer'
        prefix = 'encoder.' if is_tokenizer else None
        names = {name.removeprefix(prefix or '') for name in official}
        settings['position'] = _position(names, str(weights), disable_rel_pos_bias, abs_pos_emb)
        settings['layer_scale_init_value'] = _scale(names, str(weights), layer_scale_init_value)
    transformer = BEiTV2Backbone(**settings, out_type='featmap')
    transformer.reset_parameters()
    if tensors is not None:
        _load_whole(transformer, tensors, prefix, str(weights))
    if disable_rel_pos_bias:
        for name, parameter in transformer.named_parameters():
            if name.endswith('relative_position_bias_table'):
                nn.init.zeros_(parameter)
    mean, std = ((0.5,) * 3,) * 2 if is_tokenizer else (IMAGENET_MEAN, IMAGENET_STD)
    transformer.requires_grad_(False).eval()
    return AttentionModel(transformer, mean, std, size, Path(model).stem, tensors is None)


def _choose_size(
    settings: dict[str, Any], input_size: Size | None, patch_size: int | None
) -> tuple[int, int]:
    """Puts the sizes of patches and images into the settings; returns that of images."""
    if patch_size is not None:
        settings['patch_size'] = patch_size
    patch = to_pair(settings.get('patch_size', 16))
    size = (30 * patch[0], 30 * patch[1]) if input_size is None else to_pair(input_size)
    patch_grid(size, patch)
    settings['img_size'] = size
    return size


def _scale(names: set[str], weights: str, wanted: float | None) -> float | None:
    """The setting of a network with these weights, which have layer scale or not."""
    has_scale = 'blocks.0.gamma_1' in names
    if wanted is not None and bool(wanted) != has_scale:
        word = 'have' if has_scale else 'have no'
        print_log(
            f'--layer_scale_init_value {wanted:g} is ignored: {weights} {word} layer scale.',
            logger='current',
            level=logging.WARNING,
        )
    return None if has_scale else 0.0


def _settings(model: str) -> dict[str, Any]:
    """What `BEiTV2Backbone` needs to know about a model."""
    if model in ARCHS:
        return dict(arch=model)
    match = OFFICIAL.fullmatch(model)
    if match:
        position: Position = 'shared' if match['vocabulary'] else 'layerwise'
        return dict(arch=match['arch'], patch_size=int(match['patch']), position=position)
    if model.endswith('.py'):
        config = Config.fromfile(model)
    elif model in list_models():
        config = Config.fromfile(model_info(model).config)
    else:
        raise unknown_model(model, [*ARCHS, *OFFICIAL_NAMES, *list_models()])
    found = config.get('model', {})
    own = found.get('backbone') or found.get('encoder')
    if not own or 'arch' not in own:
        raise ValueError(f'{model} has no BEiT v2 backbone or encoder.')
    plain = {} if found.get('backbone') else dict(position='absolute', layer_scale_init_value=0.0)
    keys = ('arch', 'patch_size', 'position', 'layer_scale_init_value')
    return plain | {key: own[key] for key in keys if own.get(key) is not None}


def _read(weights: str, key: str | None) -> Mapping[str, Tensor]:
    if key is None:
        return read(weights)
    checkpoint = CheckpointLoader.load_checkpoint(weights, map_location='cpu')
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get(key), Mapping):
        has = sorted(map(str, checkpoint))[:10] if isinstance(checkpoint, Mapping) else []
        raise CheckpointError(f'{weights} has no weights under {key!r}. It has {has}.')
    return read(checkpoint[key])


def _position(names: set[str], weights: str, without_bias: bool, absolute: bool) -> Position:
    """Which positions the weights have, from their official names."""
    relative: Position | None = None
    if SHARED_TABLE in names or BLOCK_TABLE in names:
        relative = 'shared' if SHARED_TABLE in names else 'layerwise'
    if 'pos_embed' not in names:
        if absolute:
            raise CheckpointError(
                f'{weights} has no absolute position embedding: leave --abs_pos_emb out.'
            )
        return relative or 'layerwise'
    if relative and not without_bias:
        raise CheckpointError(
            f'{weights} has an absolute position embedding and a relative bias, which no BEiT v2 '
            'network has. --disable_rel_pos_bias leaves the bias out.'
        )
    return 'absolute'


def _load_whole(
    transformer: nn.Module, tensors: Mapping[str, Tensor], prefix: str | None, weights: str
) -> None:
    """Loads, and refuses what would leave blocks at random or unused."""
    report = load(transformer, tensors, prefix)
    deeper = [name for name in report.unexpected if name.startswith('blocks.')
              and not name.endswith('relative_position_bias_table')]  # fmt: skip
    if report.missing or deeper:
        what = f'lacks {report.missing[:3]}' if report.missing else f'also has {deeper[:3]}'
        raise CheckpointError(
            f'{weights} is of another architecture than --model: it {what}. Choose the model that '
            'it was trained as.'
        )
