"""Images -> pictures of the attention in them, by the transformer of any model."""

import re
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from beitv2_mm.apis.files import load_image, result_names
from beitv2_mm.apis.zoo import list_models, model_info, unknown_model
from beitv2_mm.checkpoint import CheckpointError, kind_of, load, read, to_official
from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.checkpoint.mismatch import position_of
from beitv2_mm.checkpoint.names import BIAS_TABLE
from beitv2_mm.checkpoint.network import network_in
from beitv2_mm.layers import VisionTransformer
from beitv2_mm.layers.attention_maps import attention_probabilities, mass_mask, query_map
from beitv2_mm.layers.vision_transformer import Size, patch_grid, to_pair
from beitv2_mm.models import ARCHS, BEiTV2Backbone
from beitv2_mm.models.pretrainer import IMAGENET_MEAN, IMAGENET_STD
from beitv2_mm.visualization.attention_page import attention_page
from beitv2_mm.visualization.attention_pictures import attention_pictures

OFFICIAL = re.compile(
    r'beit(?:v2)?_(?P<arch>base|large)_patch(?P<patch>\d+)_\d+(?P<vocabulary>_8k_vocab)?(?:_cls_pt)?'
)
OFFICIAL_NAMES = tuple(
    f'beit_{arch}_patch16_{rest}'
    for arch in ('base', 'large')
    for rest in ('224', '384', '224_8k_vocab', '224_8k_vocab_cls_pt')
)
RANDOM = 'RANDOM WEIGHTS: this attention means nothing'


class AttentionModel(NamedTuple):
    """A transformer in eval mode, and the mean and standard deviation that its images need."""

    transformer: VisionTransformer
    mean: tuple[float, ...]  # of pixels in [0, 1]
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
) -> AttentionModel:
    """The transformer of any model, with its positions resized to the input.

    The weights, where given, decide which positions it has and whether it has layer scale. The
    encoder of a tokenizer is such a transformer, too.

    Args:
        model: an official name, a name of `list_models`, an arch, or a config file.
        weights: file or URL of any layout; 'published' for the published weights of a name of
            `list_models`; None for random ones.
        input_size: pixels; None for 30 patches a side (480 for patches of 16).
        patch_size: None for the model's own.
        checkpoint_key: the key of the file under which the weights are; None finds them.
        disable_rel_pos_bias: leave the relative position bias out.

    Raises:
        ValueError: unknown name, or a size that the patch size does not divide.
        CheckpointError: the weights are unreadable, or of another architecture.
    """
    settings = _settings(model)
    if patch_size is not None:
        settings['patch_size'] = patch_size
    patch = to_pair(settings.get('patch_size', 16))
    size = (30 * patch[0], 30 * patch[1]) if input_size is None else to_pair(input_size)
    patch_grid(size, patch)  # raises a ValueError where the patches do not fit
    settings.update(img_size=size, out_type='featmap')
    if weights is None:
        is_tokenizer = settings.get('position') == 'absolute'
        transformer = BEiTV2Backbone(**settings)
        transformer.reset_parameters()
    else:
        where = model_info(model).weights if str(weights) == 'published' else str(weights)
        tensors = to_official(network_in(_read(where, checkpoint_key)).tensors)
        is_tokenizer = kind_of(tensors) == 'tokenizer'
        part = 'encoder.' if is_tokenizer else ''
        transformer = _trained(settings, tensors, part, where, disable_rel_pos_bias)
    if disable_rel_pos_bias:
        for name, parameter in transformer.named_parameters():
            if name.endswith(BIAS_TABLE):
                nn.init.zeros_(parameter)
    mean, std = ((0.5,) * 3,) * 2 if is_tokenizer else (IMAGENET_MEAN, IMAGENET_STD)
    transformer.requires_grad_(False).eval()
    return AttentionModel(transformer, mean, std, size, Path(model).stem, weights is None)


def _settings(model: str) -> dict[str, Any]:
    """The settings of a `BEiTV2Backbone` that a name or a config file stands for."""
    if model in ARCHS:
        return dict(arch=model)
    match = OFFICIAL.fullmatch(model)
    if match:
        position = 'shared' if match['vocabulary'] else 'layerwise'
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


def _trained(
    settings: dict[str, Any],
    tensors: Mapping[str, Tensor],
    part: str,
    weights: str,
    without_bias: bool,
) -> BEiTV2Backbone:
    """A transformer with the positions and the layer scale of its weights, all of them loaded.

    Args:
        part: prefix of the transformer among the official names of ``tensors``.

    Raises:
        CheckpointError: tensors of the transformer are missing, or would be left over.
    """
    if without_bias and f'{part}pos_embed' in tensors:
        tensors = {name: value for name, value in tensors.items() if not name.endswith(BIAS_TABLE)}
    position = position_of(tensors, part) or 'layerwise'
    scale = None if f'{part}blocks.0.gamma_1' in tensors else 0.0
    transformer = BEiTV2Backbone(**settings | dict(position=position, layer_scale_init_value=scale))
    report = load(transformer, tensors, part or None)
    left_over = [name for name in report.unexpected if name.startswith(('blocks.', 'pos_embed'))]
    if report.missing or left_over:
        what = f'lacks {report.missing[:3]}' if report.missing else f'also has {left_over[:3]}'
        raise CheckpointError(
            f'{weights} is of another architecture than --model: it {what}. Choose the model that '
            'it was trained as.'
        )
    return transformer


def visualize_attention(
    files: Sequence[str],
    model: AttentionModel,
    out: str | PathLike,
    row: int | None = None,
    column: int | None = None,
    threshold: float = 0.6,
    block: int = -1,
    all_patches: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, str]:
    """Write the pictures of each image, into ``out`` or, of several images, into ``out/NAME``:
    img.png, select.png, attn-headN.png, mask_thT_headN.png and overview.png.

    Args:
        files: see `beitv2_mm.apis.find_images`.
        row, column: of the patch whose attention is shown, from 0; None for the middle.
        threshold: share of the attention that the masks keep.
        block: from 0, negative ones from the end.
        all_patches: also write all_patches.html, see `attention_page`.
        progress: called with the number of images finished since the last call.

    Returns:
        Unreadable files and the reasons.

    Raises:
        ValueError: the patch lies outside the grid, there is no such block, or the threshold is
            no share.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f'--threshold is a share, over 0 and up to 1, not {threshold:g}.')
    row = model.grid[0] // 2 if row is None else row
    column = model.grid[1] // 2 if column is None else column
    unreadable = {}
    for file, name in zip(files, result_names(files), strict=True):
        try:
            image = load_image(file, model.size)
        except ValueError as error:
            unreadable[file] = str(error)
        else:
            attention = _attention(image, model, block)
            maps = query_map(attention, model.grid, row, column)
            masks = {f'mask_th{threshold:g}': mass_mask(maps, threshold).numpy()}
            about = _caption(model, block), RANDOM if model.is_random else ''
            folder = Path(out) if len(files) == 1 else Path(out, name)
            folder.mkdir(parents=True, exist_ok=True)
            pictures = attention_pictures(image, maps.numpy(), masks, row, column, *about)
            for key, picture in pictures.items():
                picture.save(folder / f'{key}.png')
            if all_patches:
                title, patches = f'Attention in {Path(file).name}', attention[:, 1:, 1:].numpy()
                text = attention_page(image, patches, model.grid, (row, column), title, *about)
                write_atomic(folder / 'all_patches.html', text.encode())
        progress(1)
    return unreadable


def _attention(image: Image.Image, model: AttentionModel, block: int) -> Tensor:
    """The attention (heads, 1 + N, 1 + N) of a block in an image, on the CPU."""
    pixels = F.normalize(F.pil_to_tensor(image) / 255, model.mean, model.std)
    pixels = pixels.to(model.transformer.cls_token.device)
    return attention_probabilities(model.transformer, pixels[None], block)[0].float().cpu()


def _caption(model: AttentionModel, block: int) -> str:
    count = len(model.transformer.blocks)
    return (
        f'{model.name}, block {block % count} (of 0 to {count - 1}), input {model.size[0]} x '
        f'{model.size[1]}, {model.grid[0]} x {model.grid[1]} patches'
    )
