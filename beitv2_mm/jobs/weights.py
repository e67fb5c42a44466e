"""What `--from` names -> the checkpoint that a training starts from, and the network in it."""

from collections.abc import Sequence
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
from beitv2_mm.jobs.choices import Size, exact_size
from beitv2_mm.jobs.stages import artifact
from beitv2_mm.jobs.survey import FolderError

# Trainings of a job, in the order in which their weights are preferred.
TRAININGS = ('segment', 'detect', 'finetune', 'pretrain')
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

    @property
    def size(self) -> Size:
        """The images that the transformer takes."""
        return Size(self.img_size, self.patch_size)

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
    """The weights that the user names.

    Args:
        source: the folder of a job, a file or URL of weights of any known layout, or the name of a
            published model.
        image_size: instead of the size at which the weights were trained.

    Raises:
        FolderError: there is nothing of that name, a job without a finished training, or weights
            of another network.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = finished(path)
        if found is None:
            raise FolderError(
                f'{path} holds no finished training. Make one first: '
                f'python -m beitv2_mm pretrain FOLDER --out {path}'
            )
        where = str(artifact(path / found).resolve())
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


def finished(folder: Path, trainings: Sequence[str] = TRAININGS) -> str | None:
    """The first of some trainings that a job has finished in its folder."""
    return next((name for name in trainings if (folder / name / 'done.json').is_file()), None)


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
