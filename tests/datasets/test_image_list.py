"""CSV and text files in place of a folder."""

from pathlib import Path

import pytest
from mmpretrain.datasets import CustomDataset, PackInputs

from beitv2_mm.datasets import ImageFolder, LoadImageFromFile
from beitv2_mm.datasets.packing import pack
from support.tiny import CIFAR

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')

PIPELINE = [dict(type=LoadImageFromFile), dict(type=PackInputs)]
NAMES = [str(path.relative_to(CIFAR)) for path in sorted(CIFAR.glob('*/*.png'))]
CLASSES = sorted({name.split('/')[0] for name in NAMES})


def write(path: Path, lines: list[str]) -> str:
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return str(path)


def paths(dataset: ImageFolder) -> list[str]:
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


@pytest.mark.parametrize('with_label', [False, True])
def test_text_is_read_as_mmpretrain_reads_it(tmp_path: Path, with_label: bool) -> None:
    rows = [f'{name} {i % 3}' if with_label else name for i, name in enumerate(reversed(NAMES))]
    listed = write(tmp_path / 'list.txt', rows)
    settings = dict(data_root=str(CIFAR), ann_file=listed, with_label=with_label)
    ours = ImageFolder(pipeline=PIPELINE, **settings)
    theirs = CustomDataset(pipeline=[], **settings)
    assert paths(ours) == paths(theirs) == [f'{CIFAR}/{name}' for name in reversed(NAMES)]
    if with_label:
        assert ours.get_gt_labels().tolist() == theirs.get_gt_labels().tolist()
        assert ours.metainfo['classes'] == ('0', '1', '2')
        assert ours[4]['data_samples'].gt_label.tolist() == [1]


@pytest.mark.parametrize('header', ['', 'path,label', 'class;id;Image', 'id\timg_path\tgt_label'])
def test_tables_with_and_without_header(tmp_path: Path, header: str) -> None:
    rows = []
    for i, name in enumerate(NAMES):
        cells = dict(path=f'{CIFAR}/{name}', label=name.split('/')[0], id=str(i))
        names = {'image': 'path', 'img_path': 'path', 'class': 'label', 'gt_label': 'label'}
        mark = next((mark for mark in '\t;' if mark in header), ',')
        columns = header.lower().split(mark) if header else ['path', 'label']
        rows.append(mark.join(cells[names.get(column, column)] for column in columns))
    listed = write(tmp_path / 'list.csv', [header, *rows] if header else rows)
    dataset = ImageFolder(listed, with_label=True)  # in place of the folder; absolute paths
    assert paths(dataset) == [f'{CIFAR}/{name}' for name in NAMES]
    assert dataset.metainfo['classes'] == tuple(CLASSES)
    assert dataset.get_gt_labels().tolist() == [CLASSES.index(n.split('/')[0]) for n in NAMES]
    assert paths(ImageFolder(listed)) == paths(dataset)  # labels are left alone


def test_paths_begin_at_the_list_or_at_data_root(tmp_path: Path) -> None:
    (tmp_path / 'images').symlink_to(CIFAR)
    beside = write(tmp_path / 'list.csv', [f'images/{NAMES[0]}', f'"images/{NAMES[1]}"'])
    assert paths(ImageFolder(beside)) == [f'{tmp_path}/images/{name}' for name in NAMES[:2]]
    write(tmp_path / 'names.txt', NAMES[:3])
    below = ImageFolder(str(tmp_path), ann_file='names.txt', data_prefix='images')
    assert paths(below) == [f'{tmp_path}/images/{name}' for name in NAMES[:3]]


def test_names_with_spaces(tmp_path: Path) -> None:
    name = 'a cat (1), by night.png'
    (tmp_path / name).write_bytes((CIFAR / NAMES[0]).read_bytes())
    text = write(tmp_path / 'list.txt', ['# a comment', '', f'{name} cat'])
    assert paths(ImageFolder(text, with_label=True)) == [str(tmp_path / name)]
    table = write(tmp_path / 'list.csv', [f'"{name}",cat', ''])
    assert paths(ImageFolder(table, with_label=True)) == [str(tmp_path / name)]


def test_splits_and_classes(tmp_path: Path) -> None:
    rows = [f'{CIFAR}/{name},{name.split("/")[0]}' for name in NAMES]
    listed = write(tmp_path / 'list.csv', rows)
    settings = dict(with_label=True, val_per_class=1)
    val, train = (ImageFolder(listed, subset=s, **settings) for s in ('val', 'train'))
    assert sorted(paths(val) + paths(train)) == [f'{CIFAR}/{name}' for name in NAMES]
    assert val.get_gt_labels().tolist() == list(range(10))
    held_out = [ImageFolder(listed, subset=s, val_images=2) for s in ('val', 'train')]
    assert list(map(len, held_out)) == [2, 18]
    turned = dict(classes=tuple(reversed(CLASSES)))
    named = ImageFolder(listed, with_label=True, metainfo=turned)
    assert named.get_gt_labels().tolist() == [9 - i // 2 for i in range(20)]


def test_a_list_of_a_pack(tmp_path: Path) -> None:
    pack(CIFAR, tmp_path / 'images.tar')
    listed = write(tmp_path / 'list.txt', NAMES[5:8])
    dataset = ImageFolder(str(tmp_path / 'images.tar'), ann_file=listed, pipeline=PIPELINE)
    assert len(dataset) == 3 and dataset[0]['inputs'].shape == (3, 32, 32)
    write(tmp_path / 'list.txt', [NAMES[0], 'gone.png'])
    with pytest.raises(FileNotFoundError, match=r'list\.txt, line 2: .* gone\.png in pack:'):
        ImageFolder(str(tmp_path / 'images.tar'), ann_file=listed)
    with pytest.raises(ValueError, match='is a list: pack the folder'):
        pack(listed, tmp_path / 'other.tar')


@pytest.mark.parametrize(
    ('lines', 'settings', 'message'),
    [
        (['path', NAMES[0], 'gone.png'], {}, r'list\.csv, line 3: there is no file .*gone\.png'),
        ([NAMES[0], 'a.png', 'b.png'], {}, r'line 2: .*a\.png \(2 lines have no file\)'),
        ([f'{NAMES[0]},cat', NAMES[1]], dict(with_label=True), r'list\.csv, line 2 has no label'),
        ([f',{NAMES[0]}'], {}, r'line 1 has no path: expected PATH,LABEL'),
        (['path,size', f'{NAMES[0]},3'], dict(with_label=True), 'columns path, size: for labels'),
        (
            [f'{NAMES[0]},cat', f'{NAMES[1]},cow'],
            dict(with_label=True, metainfo=dict(classes=('cat', 'dog'))),
            r"line 2: the label 'cow' of .* is no class: expected a number from 0 to 1, or one",
        ),
        (
            [f'{NAMES[0]},0', f'{NAMES[1]},2'],
            dict(with_label=True, metainfo=dict(classes=('cat', 'dog'))),
            r"line 2: the label '2'",
        ),
        ([], {}, 'has no image'),
        (['\0'], {}, 'has no image|there is no file'),
    ],
)
def test_mistakes_name_the_line(
    tmp_path: Path, lines: list[str], settings: dict, message: str
) -> None:
    listed = write(tmp_path / 'list.csv', lines)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ImageFolder(str(CIFAR), ann_file=listed, **settings)


def test_lists_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'no list of images .*gone\.csv.*check ann_file'):
        ImageFolder(str(CIFAR), ann_file='gone.csv')
    (tmp_path / 'list.csv').write_bytes(b'\xff\xfe\0\x80')
    with pytest.raises(ValueError, match=r'list\.csv is no list of images: it is not UTF-8'):
        ImageFolder(str(tmp_path / 'list.csv'))
