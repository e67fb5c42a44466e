"""600 malformed images: each kind has the outcome that docs/data_faults.md states."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.datasets import PackInputs
from PIL import Image

from beitv2_mm.datasets import (
    ImageFolder,
    LoadImageFromFile,
    UnreadableImageError,
    read_image,
    reading,
)
from beitv2_mm.datasets.reading import REASONS
from beitv2_mm.engine import UnreadableImagesHook
from support.faulty_images import KINDS, encoded, originals

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')

TABLE = Path(__file__).parents[2] / 'docs/data_faults.md'
MARKS = '<!-- made by tests/datasets/test_data_faults.py -->\n', '<!-- end -->\n'
PIPELINE = [dict(type=LoadImageFromFile)]


@pytest.fixture(scope='module')
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A folder of images and what each must become."""
    folder, expected = tmp_path_factory.mktemp('faulty'), {}
    random = np.random.default_rng(0)
    for number, kind in enumerate(KINDS):
        for i, image in enumerate(originals()):
            path = folder / f'{number:02d}_{i:02d}{kind.suffix}'
            expected[str(path)] = kind.make(image, path, random)
    for i in range(5):
        (folder / f'good_{i}.png').write_bytes(encoded(originals()[i], 'PNG'))
    return folder, expected


def remove_vanishing(folder: Path) -> None:
    number = [kind.name for kind in KINDS].index('vanished after listing')
    for path in folder.glob(f'{number:02d}_*'):
        path.unlink()


def test_every_kind_has_its_outcome_and_the_docs_tell_it(faulty: tuple[Path, dict]) -> None:
    folder, expected = faulty
    assert len(expected) >= 500
    dataset = ImageFolder(str(folder), pipeline=PIPELINE)
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    assert set(expected) < set(paths)
    remove_vanishing(folder)
    read: dict[str, np.ndarray] = {}
    for i, path in enumerate(paths):
        item = dataset[i]
        if item['img_path'] == path:
            read[path] = item['img'][..., ::-1]
    skipped = dataset.unreadable()
    assert dataset.num_unreadable == len(skipped)
    outcomes: dict[int, Counter] = {number: Counter() for number in range(len(KINDS))}
    for path, outcome in expected.items():
        if isinstance(outcome, str):
            assert path not in read and skipped[path] == outcome, (path, outcome)
            became = f'skipped, "{outcome}"'
        else:
            pixels, tolerance = outcome
            assert path not in skipped and read[path].shape == pixels.shape
            difference = np.abs(read[path].astype(int) - pixels)
            assert difference.max() <= tolerance and difference.mean() <= tolerance / 8, path
            became = 'read'
        outcomes[int(Path(path).name[:2])][became] += 1
    rows = [
        f'| {kind.name} | {kind.rule} | '
        + ', '.join(f'{count} {became}' for became, count in outcomes[number].items())
        + ' |'
        for number, kind in enumerate(KINDS)
    ]
    table = '\n'.join(['| kind | rule | outcomes |', '|---|---|---|', *rows]) + '\n'
    text = TABLE.read_text()
    start, end = (text.index(mark) for mark in MARKS)
    new = text[: start + len(MARKS[0])] + '\n' + table + '\n' + text[end:]
    if 'UPDATE_DOCS' in os.environ:
        TABLE.write_text(new)
    assert new == text or 'UPDATE_DOCS' in os.environ, 'UPDATE_DOCS=1 pytest ' + __file__
    assert all(f'`{reason}`' in text for reason in REASONS)


class Nothing(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs: list, data_samples: list, mode: str = 'tensor') -> dict:
        assert all(image.dtype == torch.uint8 for image in inputs)
        return dict(loss=self.weight.sum())


def test_a_run_survives_them_counts_and_lists_them(
    faulty: tuple[Path, dict], tmp_path: Path
) -> None:
    folder, expected = faulty
    remove_vanishing(folder)
    runner = Runner(
        model=Nothing(),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=16,
            num_workers=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
            dataset=dict(
                type=ImageFolder,
                data_root=str(folder),
                pipeline=[*PIPELINE, dict(type=PackInputs)],
            ),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[dict(type=UnreadableImagesHook)],
        default_hooks=dict(checkpoint=None),
        experiment_name='faulty',
    )
    before = {'/elsewhere/a.jpg': 'empty'}  # found by a run that this one continues
    (tmp_path / 'unreadable_images.json').write_text(json.dumps(before))
    runner.train()
    listed = json.loads((tmp_path / 'unreadable_images.json').read_text())
    existing = os.listdir(folder)
    bad = {
        path: why
        for path, why in expected.items()
        if isinstance(why, str) and Path(path).name in existing
    }
    assert listed == {**before, **bad}
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert f'{len(bad)} of {len(existing)} training images are unreadable (' in log
    assert '100 damaged' in log and 'unreadable_images.json names them' in log


def test_read_errors_that_go_away_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = tmp_path / 'a.png', []
    path.write_bytes(encoded(originals()[0], 'PNG'))
    monkeypatch.setattr(reading, 'RETRY_DELAYS', (0, 0, 0))
    get = reading.fileio.get

    def failing(times: int, error: type[OSError]) -> None:
        calls.clear()

        def read(name: str) -> bytes:
            calls.append(name)
            if len(calls) <= times:
                raise error(5, 'Input/output error')
            return get(name)

        monkeypatch.setattr(reading.fileio, 'get', read)

    failing(3, OSError)
    assert np.array_equal(read_image(path), originals()[0])
    failing(4, OSError)
    with pytest.raises(UnreadableImageError, match=r'a\.png: read error .*tried four times'):
        read_image(path)
    assert len(calls) == 4
    failing(9, PermissionError)
    with pytest.raises(UnreadableImageError, match='no permission'):
        read_image(path)
    assert len(calls) == 1  # waiting would not help


def test_files_that_never_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'zero.png').symlink_to('/dev/zero')
    os.mkfifo(tmp_path / 'pipe.png')
    for name in ('zero.png', 'pipe.png'):
        with pytest.raises(UnreadableImageError, match='not a regular file'):
            read_image(tmp_path / name)
    with (tmp_path / 'sparse.png').open('wb') as file:
        file.truncate(reading.MAX_BYTES + 1)
    with pytest.raises(UnreadableImageError, match='too large'):
        read_image(tmp_path / 'sparse.png')


def test_a_giant_image_is_skipped_without_a_warning_of_pillow(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    Image.new('1', (10_000, 10_000)).save(tmp_path / 'giant.png')
    with pytest.raises(UnreadableImageError, match='10000 x 10000 pixels, limit'):
        read_image(tmp_path / 'giant.png')
    assert not [w for w in recwarn if issubclass(w.category, Image.DecompressionBombWarning)]
