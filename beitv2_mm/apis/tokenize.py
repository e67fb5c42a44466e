"""Image files -> codes (n, rows, columns) in one .npz; an interrupted run goes on where it was."""

import hashlib
import io
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.datasets.image_folder import EXTENSIONS
from beitv2_mm.datasets.reading import UnreadableImageError, read_image

Item = tuple[Tensor, str]


class Tokenized(NamedTuple):
    """What was written."""

    codes: np.ndarray  # (n, rows, columns), uint16 for up to 65536 codes
    files: list[str]  # n names
    unreadable: dict[str, str]  # name -> why


def find_images(inputs: Iterable[str | PathLike]) -> list[str]:
    """Files as given and all images below folders, those in sorted order, hidden ones ignored.

    Raises:
        FileNotFoundError: no such file or folder, or no image in a folder.
    """
    found: list[str] = []
    for given in map(Path, inputs):
        if given.is_dir():
            below = (path for path in sorted(given.rglob('*')) if path.suffix.lower() in EXTENSIONS)
            images = [
                str(path)
                for path in below
                if not any(part.startswith('.') for part in path.relative_to(given).parts)
            ]
            if not images:
                raise FileNotFoundError(
                    f'There is no image in {given} or below; files ending in '
                    f'{", ".join(EXTENSIONS)} were looked for.'
                )
            found += images
        elif given.is_file():
            found.append(str(given))
        else:
            raise FileNotFoundError(f'There is no file or folder {given}.')
    return list(dict.fromkeys(found))


class _Images(Dataset):
    """Path -> uint8 (3, H, W), or the reason why it cannot be read."""

    def __init__(
        self, files: Sequence[str], size: tuple[int, int], white: float | None = None
    ) -> None:
        self.files = files
        self.size = size
        self.white = white

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        height, width = self.size
        try:
            image = Image.fromarray(read_image(self.files[index], self.white))
        except UnreadableImageError as error:
            return torch.zeros(3, height, width, dtype=torch.uint8), str(error)
        pixels = centre_crop(image, height, width)
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1), ''


def centre_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """The largest centred part of that aspect ratio, resized (bicubic)."""
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)


def tokenize_images(
    files: Sequence[str],
    tokenizer: nn.Module,
    out: str | PathLike,
    batch_size: int = 64,
    num_workers: int = 0,
    part_size: int = 2048,
    progress: Callable[[int], None] = lambda count: None,
) -> Tokenized:
    """Codes of image files, cropped to the tokenizer's image size.

    Parts of ``part_size`` images are kept in ``out``.parts until all are done, so that the same
    call continues an interrupted one. ``out`` appears whole, with 'codes', 'files', 'unreadable'
    and 'num_codes'.

    Args:
        files: see `find_images`.
        tokenizer: see `build_tokenizer`; it runs on the device that it is on.
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
    parts = _open_parts(out, files, tokenizer, part_size)
    starts = range(0, len(files), part_size)
    names = {start: parts / f'{start:09d}.npz' for start in starts}
    todo = [start for start in starts if not names[start].exists()]
    rest = [i for start in todo for i in range(start, min(start + part_size, len(files)))]
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
        while todo and len(codes) >= (count := min(part_size, len(files) - todo[0])):
            _save(names[todo.pop(0)], codes=np.stack(codes[:count]), reasons=reasons[:count])
            del codes[:count], reasons[:count]
        progress(len(pixels))
    result = _join([names[start] for start in starts], files, tokenizer.quantize.num_codes)
    _save(
        out,
        codes=result.codes,
        files=np.array(result.files),
        unreadable=np.array(list(result.unreadable)),
        num_codes=tokenizer.quantize.num_codes,
    )
    shutil.rmtree(parts)
    return result


def _open_parts(out: Path, files: Sequence[str], tokenizer: nn.Module, part_size: int) -> Path:
    """The folder of the parts, after a check that those in it are of the same job."""
    digest = hashlib.sha256('\n'.join(files).encode())
    for name in ('encode_task_layer.2.weight', 'quantize.embedding.weight'):
        digest.update(tokenizer.get_parameter(name).detach().cpu().numpy().tobytes())
    job = dict(digest=digest.hexdigest(), part_size=part_size)
    parts = out.with_name(f'{out.name}.parts')
    record = parts / 'job.json'
    if not record.exists():
        parts.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(job))
    elif record.read_bytes() != json.dumps(job).encode():
        raise ValueError(
            f'{parts} holds codes of other images, of another tokenizer or in parts of another '
            'size: give another --out, or delete that folder.'
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
