"""Teachers by name or file: the value of `--teacher` -> settings of a `TimmTeacher`."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import timm
import torch
from huggingface_hub import constants

from beitv2_mm.checkpoint import CheckpointError, read
from beitv2_mm.engine.quiet import hide_unexpected_keys
from beitv2_mm.jobs.efficientnet import MODEL as EFFICIENTNET
from beitv2_mm.jobs.efficientnet import TEACHER_FILE, write_teacher
from beitv2_mm.jobs.survey import FolderError
from beitv2_mm.models import TimmTeacher

# Short name -> timm's name, and whether patch tokens go through its head.
TEACHERS: dict[str, tuple[str, bool]] = {
    'clip': ('vit_base_patch16_clip_quickgelu_224.openai', True),
    'dino': ('vit_base_patch16_224.dino', False),
    'efficientnet_lite0': (EFFICIENTNET, False),
}


class Teacher(NamedTuple):
    """Settings that go into the tokenizer's config, and the width of the features."""

    settings: dict[str, object]
    dims: int
    convolutional: bool


def find_teacher(source: str, folder: Path, grid: int) -> Teacher:
    """A teacher for grids of ``grid`` x ``grid`` patches, ready to use.

    Args:
        source: one of `TEACHERS`, a timm name or a file of weights.
        folder: takes the weights that do not come from timm's hub.

    Raises:
        FolderError: the name is unknown, or the weights cannot be downloaded or belong to another
            network.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return _from_file(path, grid)
    if source not in TEACHERS and not timm.is_model(source):
        if path.suffix in ('.pth', '.pt', '.safetensors', '.bin') or '/' in source:
            raise FolderError(f'There is no file {path.absolute()} to take the teacher from.')
        names = [*TEACHERS, *timm.list_models()]
        near = get_close_matches(source.lower(), names, n=3, cutoff=0.4) or list(TEACHERS)
        raise FolderError(
            f'There is no teacher {source!r}. Did you mean {", ".join(near)}? '
            f'--teacher takes {", ".join(TEACHERS)}, any name of timm, or a file of weights.'
        )
    name, projection = TEACHERS.get(source, (source, False))
    if source == 'efficientnet_lite0':  # from a package: it needs no network
        weights = folder / TEACHER_FILE
        if not weights.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_teacher(weights)
        return _build(name, projection, weights.resolve(), grid)
    try:
        with _offline_if_it_is():
            return _build(name, projection, None, grid)
    except (OSError, RuntimeError) as error:  # of the hub's client: offline, no such repository
        reason = (str(error).strip().splitlines() or ['no reason given'])[0]
        raise FolderError(
            f'The weights of the teacher {name} cannot be downloaded ({reason}). Without network: '
            '--teacher efficientnet_lite0, after pip install "beitv2_mm[quickstart]". Or fetch '
            f'{_weights_of(name)} on a machine with internet, name the file {name}.safetensors and '
            'give --teacher PATH.'
        ) from error


@contextmanager
def _offline_if_it_is() -> Iterator[None]:
    """Where the hub cannot be reached, its client looks only into its cache.

    Otherwise it would try five times for each possible name of the file, and warn each time.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reaches(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reaches(url: str) -> bool:
    try:
        with urlopen(Request(url, method='HEAD'), timeout=5):
            return True
    except HTTPError:  # is an answer, too
        return True
    except OSError:
        return False


def _weights_of(name: str) -> str:
    """Where timm takes the weights from, which is often a repository of another name."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return (config and config.url) or 'its weights'
    return f'{config.hf_hub_filename or "model.safetensors"} from huggingface.co/{config.hf_hub_id}'


def _from_file(path: Path, grid: int) -> Teacher:
    try:
        read(path)
    except (CheckpointError, OSError) as error:
        raise FolderError(f'{path} cannot be the teacher: {error}') from error
    tried = []
    for name, projection in _candidates(path):
        try:
            return _build(name, projection, path.resolve(), grid)
        except (RuntimeError, KeyError, ValueError):  # of timm: the weights are not this network's
            tried.append(name)
    raise FolderError(
        f'{path} holds weights of none of {", ".join(tried)}. Name the file as timm names its '
        'network, e.g. vit_base_patch16_224.dino.safetensors.'
    )


def _candidates(path: Path) -> Iterator[tuple[str, bool]]:
    if timm.is_model(path.stem):
        yield path.stem, path.stem == TEACHERS['clip'][0]
    yield from (entry for entry in TEACHERS.values() if entry[0] != path.stem)


def _build(name: str, projection: bool, weights: Path | None, grid: int) -> Teacher:
    """Builds and runs the teacher once, so that mistakes show before the training."""
    hide_unexpected_keys()
    settings: dict[str, object] = dict(model=name, projection=projection)
    if weights is not None:
        settings['checkpoint'] = str(weights)
    with torch.device('meta'):
        convolutional = not hasattr(timm.create_model(name, pretrained=False), 'num_prefix_tokens')
    if convolutional:
        settings.update(input_size=16 * grid, stride=16)  # a feature for every patch
    teacher = TimmTeacher(**settings).eval()  # type: ignore[arg-type]
    features = teacher(torch.zeros(1, 3, teacher.input_size, teacher.input_size), (grid, grid))
    return Teacher(settings, features.shape[-1], convolutional)
