"""What a training starts from: what `--from` takes -> a checkpoint and the network in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from beitv2_mm.apis.zoo import list_models, model_info, unknown_model
from beitv2_mm.checkpoint import CheckpointError, kind_of, read, to_official
from beitv2_mm.checkpoint.grids import grid_of
from beitv2_mm.checkpoint.mismatch import arch_of, position_of
from beitv2_mm.checkpoint.network import network_in
from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.jobs.choices import exact_size
from beitv2_mm.jobs.stages import artifact
from beitv2_mm.jobs.survey import FolderError

# Trainings of a job, in the order in which their weights are preferred.
TRAININGS = ('segment', 'finetune', 'pretrain')
SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors', '.tar')


@dataclass(frozen=True)
class Weights:
    """A checkpoint and the sizes of its transformer."""

    checkpoint: str  # a path or a URL
    arch: str | dict
    img_size: int
    patch_size: int
    position: str
    layer_scale: bool
    prefix: str | None = None  # of the transformer in the file
    in_channels: int = COLOURS

    def backbone(self) -> dict[str, Any]:
        """Settings of a `BEiTV2Backbone` that these weights fit into, with its ``init_cfg``."""
        init: dict[str, Any] = dict(type='Pretrained', checkpoint=self.checkpoint)
        if self.prefix:
            init['prefix'] = self.prefix
        settings = dict(
            arch=self.arch,
            img_size=self.img_size,
            patch_size=self.patch_size,
            position='absolute' if self.position == 'absolute' else 'layerwise',
            init_cfg=init,
        )
        return settings if self.layer_scale else settings | dict(layer_scale_init_value=0.0)


def find_weights(source: str, image_size: int | None = None) -> Weights:
    """Looks into what the user names.

    Args:
        source: the folder of a job, a file or URL of weights of any known layout, or the name of a
            published model.
        image_size: instead of the size that the weights were trained at.

    Raises:
        FolderError: nothing of that name, a job that is not finished, weights of another network.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        where = str(_of_job(path).resolve())
    elif path.is_file():
        where = str(path.resolve())
    elif source in list_models():
        where = model_info(source).weights
    elif '://' in source:
        where = source
    elif path.suffix in SUFFIXES or '/' in source:
        raise FolderError(f'There is no file or folder {path.absolute()} to start from (--from).')
    else:
        raise FolderError(
            f'--from takes the folder of a job, a file of weights or the name of a model. '
            f'{unknown_model(source, list_models())}'
        )
    try:
        tensors = to_official(network_in(read(where)).tensors)
        return _describe(tensors, where, image_size)
    except CheckpointError as error:
        raise FolderError(f'--from {source}: {error}') from error


def _of_job(folder: Path) -> Path:
    finished = [name for name in TRAININGS if (folder / name / 'done.json').is_file()]
    if not finished:
        raise FolderError(
            f'{folder} holds no finished training. Make one first: '
            f'python -m beitv2_mm pretrain FOLDER --out {folder}'
        )
    return artifact(folder / finished[0])


def _describe(tensors: dict[str, Tensor], where: str, image_size: int | None) -> Weights:
    part = 'encoder.' if kind_of(tensors) == 'tokenizer' else ''
    arch, position = arch_of(tensors, part), position_of(tensors, part)
    if arch is None or position is None or f'{part}blocks.0.attn.q_bias' not in tensors:
        raise CheckpointError('holds no transformer of BEiT, but another network')
    channels, patch = tensors[f'{part}patch_embed.proj.weight'].shape[1:3]
    if image_size is None:
        image_size = grid_of(tensors, part)[0] * patch
    else:
        exact_size(image_size, patch)
    scaled = f'{part}blocks.0.gamma_1' in tensors
    return Weights(where, arch, image_size, patch, position, scaled, part or None, channels)
