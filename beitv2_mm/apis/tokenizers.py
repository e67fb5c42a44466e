"""Trained tokenizers from files: the published ones by their shapes, others by their config."""

from os import PathLike

from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor

from beitv2_mm.checkpoint import CheckpointError, Source, dataset_meta, load, read, to_official
from beitv2_mm.checkpoint.network import network_in
from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.models import ARCHS, VQKDTokenizer
from beitv2_mm.registry import MODELS


def build_tokenizer(source: Source, config: str | PathLike | Config | None = None) -> BaseModel:
    """A frozen tokenizer in eval mode, without teacher; ``white`` is what its training images of 16
    bits had, None where the file does not say.

    Args:
        source: file, URL or state dict of any layout; of an mmpretrain pretraining checkpoint its
            target generator.
        config: that of the tokenizer, or of a pretraining that names it; None recognises the
            published tokenizers (base encoder, decoder of 1 or 3 blocks, CLIP or DINO teacher).

    Raises:
        CheckpointError: unreadable, no tokenizer, or not one of the published.
    """
    weights = read(source)
    inside = any(name.startswith('target_generator.') for name in weights)
    weights = network_in(weights, prefix='target_generator.' if inside else None).tensors
    where = source if isinstance(source, str | PathLike) else 'the given weights'
    if config is None:
        settings = _recognise(to_official(weights), str(where))
    else:
        found = config if isinstance(config, Config) else Config.fromfile(config)
        settings = found.model.to_dict()
        settings = settings.get('tokenizer', settings)
    settings = {'type': VQKDTokenizer, **settings, 'teacher': None, 'init_cfg': None}
    tokenizer: BaseModel = MODELS.build(settings)
    report = load(tokenizer, weights)
    needed = [n for n in report.missing if n.startswith(('encoder.', 'encode_', 'quantize.emb'))]
    if needed:
        raise CheckpointError(f'{where} is no whole tokenizer, it lacks {needed[:3]}')
    channels = tokenizer.encoder.patch_embed.proj.in_channels
    if channels != COLOURS:
        raise CheckpointError(
            f'{where} takes images of {channels} channels, and files are read as colours here. Use '
            f'ImageFolder(channels={channels}, ...) and the get_codes of its model.'
        )
    meta = dataset_meta(source) if isinstance(source, str | PathLike) else {}
    tokenizer.white = meta.get('white')
    return tokenizer.requires_grad_(False).eval()


def _recognise(weights: dict[str, Tensor], where: str) -> dict:
    """Settings of the published tokenizers; attention heads leave no trace in shapes."""
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    base = ARCHS['base']
    blocks = [
        len({name.split('.')[2] for name in shapes if name.startswith(f'{part}.blocks.')})
        for part in ('encoder', 'decoder')
    ]
    target_dims = (shapes.get('decode_task_layer.2.weight', (512,)) or (0,))[0]
    published = (
        shapes.get('encoder.patch_embed.proj.weight') == (base.embed_dims, 3, 16, 16)
        and shapes.get('encoder.pos_embed') == (1, 1 + 14 * 14, base.embed_dims)
        and shapes.get('quantize.embedding.weight') == (8192, 32)
        and blocks[0] == base.num_layers
        and blocks[1] in (0, 1, 3)  # mmpretrain's has no decoder, and codes need none
        and target_dims in (512, 768)  # CLIP, DINO
    )
    if not published:
        raise CheckpointError(
            f'{where} is none of the published tokenizers (codebook '
            f'{shapes.get("quantize.embedding.weight")}, {blocks[0]} encoder blocks): give the '
            'config that it was trained with (--config)'
        )
    decoder = base._replace(num_layers=blocks[1] or 1)
    return dict(
        encoder=dict(arch='base', img_size=224, patch_size=16),
        decoder=dict(arch=decoder._asdict()),
        quantizer=dict(num_codes=8192, dim=32),
        target_dims=target_dims,
    )
