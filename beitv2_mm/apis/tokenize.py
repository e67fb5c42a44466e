"""Trained tokenizers from files, and the codes (n, rows, columns) of image files in one .npz; an
interrupted run continues where it stopped."""

import hashlib
import io
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from beitv2_mm.apis.files import load_image
from beitv2_mm.checkpoint import CheckpointError, Source, dataset_meta, load, read, to_official
from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.checkpoint.mismatch import arch_of, num_blocks
from beitv2_mm.checkpoint.network import network_in
from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.datasets.reading import UnreadableImageError
from beitv2_mm.models import ARCHS, VQKDTokenizer
from beitv2_mm.registry import MODELS

TEACHERS = {  # of the published tokenizers, by the width of their features
    512: 'vit_base_patch16_clip_quickgelu_224.openai',
    768: 'vit_base_patch16_224.dino',
}
PART_SIZE = 2048  # images whose codes are stored in one file until all are done


def build_tokenizer(source: Source, config: str | PathLike | Config | None = None) -> BaseModel:
    """A frozen tokenizer in eval mode, without a teacher.

    Its attributes say what it was trained with, where that is known: ``white`` is the white level
    of 16-bit images, or None, and ``teacher_name`` the timm name of the teacher, or ''.

    Args:
        source: file, URL or state dict of any layout. From a pretraining checkpoint of mmpretrain
            the target generator is taken.
        config: the tokenizer's, or that of a pretraining which contains the tokenizer. Without one,
            the published tokenizers are recognised (base encoder, decoder of 1 or 3 blocks, CLIP
            or DINO teacher).

    Raises:
        CheckpointError: the weights are unreadable, of no tokenizer, or need a ``config``.
    """
    weights = read(source)
    inside = any(name.startswith('target_generator.') for name in weights)
    weights = network_in(weights, prefix='target_generator.' if inside else None).tensors
    where = source if isinstance(source, str | PathLike) else 'the given weights'
    if config is None:
        settings = published_settings(to_official(weights), str(where))
    else:
        found = config if isinstance(config, Config) else Config.fromfile(config)
        settings = found.model.to_dict()
        settings = settings.get('tokenizer', settings)
    teacher = settings.get('teacher') or {}
    settings = {'type': VQKDTokenizer, **settings, 'teacher': None, 'init_cfg': None}
    tokenizer: BaseModel = MODELS.build(settings)
    report = load(tokenizer, weights)
    needed = [n for n in report.missing if n.startswith(('encoder.', 'encode_', 'quantize.emb'))]
    if needed:
        raise CheckpointError(f'{where} is no whole tokenizer, it lacks {needed[:3]}')
    channels = tokenizer.encoder.patch_embed.proj.in_channels
    if channels != COLOURS:
        raise CheckpointError(
            f'{where} takes images of {channels} channels, but image files are read as RGB here. '
            f'Use ImageFolder(channels={channels}, ...) and the get_codes of its model.'
        )
    meta = dataset_meta(source) if isinstance(source, str | PathLike) else {}
    tokenizer.white = meta.get('white')
    tokenizer.teacher_name = teacher.get('model', '')
    return tokenizer.requires_grad_(False).eval()


def published_settings(weights: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Settings of the published tokenizer that has these weights, under official names.

    Others are refused: the shapes do not show the number of attention heads.

    Raises:
        CheckpointError: the weights are of none of the published tokenizers.
    """
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    decoder_blocks = num_blocks(weights, 'decoder.')
    target_dims = (shapes.get('decode_task_layer.2.weight', (512,)) or (0,))[0]
    base = ARCHS['base']
    published = (
        arch_of(weights, 'encoder.') == 'base'
        and shapes.get('encoder.patch_embed.proj.weight') == (base.embed_dims, 3, 16, 16)
        and shapes.get('encoder.pos_embed') == (1, 1 + 14 * 14, base.embed_dims)
        and shapes.get('quantize.embedding.weight') == (8192, 32)
        and decoder_blocks in (0, 1, 3)  # mmpretrain's has no decoder, and codes need none
        and target_dims in (512, 768)  # CLIP, DINO
    )
    if not published:
        raise CheckpointError(
            f'{where} is none of the published tokenizers (codebook '
            f'{shapes.get("quantize.embedding.weight")}, {num_blocks(weights, "encoder.")} encoder '
            'blocks): give the config that it was trained with (--config)'
        )
    decoder = base._replace(num_layers=decoder_blocks or 1)
    return dict(
        encoder=dict(arch='base', img_size=224, patch_size=16),
        decoder=dict(arch=decoder._asdict()),
        quantizer=dict(num_codes=8192, dim=32),
        target_dims=target_dims,
        teacher=dict(model=TEACHERS[target_dims]),
    )


class Tokenized(NamedTuple):
    """The content of the file that was written."""

    codes: np.ndarray  # (n, rows, columns), uint16 for up to 65536 codes
    files: list[str]  # the n files
    unreadable: dict[str, str]  # file -> why it could not be read


class _Images(Dataset):
    """File -> uint8 (3, H, W) and '', or zeros and the reason why the file cannot be read."""

    def __init__(self, files: Sequence[str], size: tuple[int, int], white: float | None) -> None:
        self.files = files
        self.size = size
        self.white = white

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        try:
            image = load_image(self.files[index], self.size, self.white)
        except UnreadableImageError as error:
            return torch.zeros(3, *self.size, dtype=torch.uint8), str(error)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1), ''


def tokenize_images(
    files: Sequence[str],
    tokenizer: nn.Module,
    out: str | PathLike,
    batch_size: int = 64,
    num_workers: int = 0,
    progress: Callable[[int], None] = lambda count: None,
) -> Tokenized:
    """Write the codes of image files, each cropped to the tokenizer's image size.

    Parts of `PART_SIZE` images are kept in the folder ``out``.parts until all are done, so that
    the same call continues an interrupted one. Then ``out`` is written in one go, with the arrays
    'codes', 'files', 'unreadable' and 'num_codes'.

    Args:
        files: see `find_images`.
        tokenizer: see `build_tokenizer`; it runs on the device that it is on.
        out: a path that ends with .npz.
        progress: called with the number of images finished since the last call.

    Raises:
        ValueError: ``out`` is no .npz, its parts are of other images or another tokenizer, or not
            one image can be read.
    """
    out = Path(out)
    if out.suffix != '.npz':
        raise ValueError(f'Codes are written to a .npz file, but {out} was given.')
    encoder = tokenizer.encoder
    (rows, columns), patch = encoder.grid, encoder.patch_size
    size = (rows * patch[0], columns * patch[1])
    parts = _open_parts(out, files, tokenizer)
    starts = range(0, len(files), PART_SIZE)
    names = {start: parts / f'{start:09d}.npz' for start in starts}
    todo = [start for start in starts if not names[start].exists()]
    rest = [i for start in todo for i in range(start, min(start + PART_SIZE, len(files)))]
    progress(len(files) - len(rest))
    images = _Images([files[i] for i in rest], size, getattr(tokenizer, 'white', None))
    loader = DataLoader(images, batch_size, num_workers=num_workers)
    device = next(tokenizer.parameters()).device
    codes: list[np.ndarray] = []
    reasons: list[str] = []
    for pixels, why in loader:
        batch = tokenizer.get_codes(pixels.to(device)).cpu().numpy()
        codes.extend(batch.reshape(-1, rows, columns))
        reasons.extend(why)
        while todo and len(codes) >= (count := min(PART_SIZE, len(files) - todo[0])):
            _save(names[todo.pop(0)], codes=np.stack(codes[:count]), reasons=reasons[:count])
            del codes[:count], reasons[:count]
        progress(len(pixels))
    num_codes = tokenizer.quantize.num_codes
    result = _join(list(names.values()), files, num_codes)
    unreadable = list(result.unreadable)
    _save(out, codes=result.codes, files=result.files, unreadable=unreadable, num_codes=num_codes)
    shutil.rmtree(parts)
    return result


def _open_parts(out: Path, files: Sequence[str], tokenizer: nn.Module) -> Path:
    """The folder of the parts, after a check that those in it belong to the same job."""
    digest = hashlib.sha256('\n'.join(files).encode())
    for name in ('encode_task_layer.2.weight', 'quantize.embedding.weight'):
        digest.update(tokenizer.get_parameter(name).detach().cpu().numpy().tobytes())
    job = dict(digest=digest.hexdigest(), part_size=PART_SIZE)
    parts = out.with_name(f'{out.name}.parts')
    record = parts / 'job.json'
    if not record.exists():
        parts.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(job))
    elif record.read_bytes() != json.dumps(job).encode():
        raise ValueError(
            f'{parts} holds codes of other images or of another tokenizer: give another --out, or '
            'delete that folder.'
        )
    return parts


def _join(parts: Sequence[Path], files: Sequence[str], num_codes: int) -> Tokenized:
    codes, reasons = [], []
    for path in parts:
        try:
            with np.load(path, allow_pickle=False) as part:
                codes.append(part['codes'])
                reasons += part['reasons'].tolist()
        except (EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f'{path} is damaged ({error}): delete it, try again.') from error
    unreadable = {file: why for file, why in zip(files, reasons, strict=True) if why}
    if len(unreadable) == len(files):
        why = next(iter(unreadable.values()))
        raise ValueError(f'Not one of the {len(files)} images can be read. {why}')
    kept = np.array([not why for why in reasons])
    dtype = np.uint16 if num_codes <= 2**16 else np.int32
    return Tokenized(
        np.concatenate(codes)[kept].astype(dtype),
        [file for file in files if file not in unreadable],
        unreadable,
    )


def _save(path: Path, **arrays: object) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())
