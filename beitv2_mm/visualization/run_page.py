"""Work directory of a run -> one page with its curves, last values and latest pictures. It needs no
other file."""

import re
from os import PathLike
from pathlib import Path

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.visualization.curves import (
    Panel,
    Scalars,
    drawable,
    how_drawn,
    plot_curves,
    read_scalars,
    validation_axis,
)
from beitv2_mm.visualization.names import NAMES, is_percent, name_of, value_of
from beitv2_mm.visualization.page import figure, figures, page, section, table
from beitv2_mm.visualization.report import Picture

# Title of a panel, and the pattern of the training scalars in it.
PANELS = (
    ('Loss', r'loss'),
    ('Terms of the loss', r'(.*\.)?loss_.*'),
    ('Cosine to the teacher', r'cosine'),
    ('Accuracy', r'accuracy.*|(.*\.)?acc_.*'),
    ('Codebook in use', r'codebook_usage_ema'),
    ('Codebook: perplexity', r'codebook_perplexity_ema'),
    ('Learning rate', r'(base_)?lr'),
    ('Gradient norm', r'grad_norm'),
)
MAX_PICTURES = 12  # visualizers of other packages store one for each validation image
NOT_SHOWN = {'time', 'data_time', 'memory', 'epoch', 'iter'}
CAPTIONS = {
    'code_maps': ('Images as codes', 'A colour stands for a code.'),
    'code_atlas': ('What codes look like', 'Each row is a code, with patches that have it.'),
    'code_usage': ('How often codes are used', 'In the validation images.'),
    'mim_predictions': (
        'Predictions for hidden patches',
        'Real patches of other images stand for the codes. The numbers say how many are right.',
    ),
    'segmentation': ('Segmentation', 'True classes where known, and predicted ones.'),
    'detection': ('Detection', 'Annotated objects where known, and detected ones.'),
    'attention': (
        'Attention',
        'From the middle patch to all patches. Bright is more; each map spans its own range.',
    ),
}


def write_run_page(work_dir: str | PathLike) -> Path:
    """Write ``work_dir``/run.html from the files of its LocalVisBackend; returns its path.

    Raises:
        FileNotFoundError: the run logged nothing.
    """
    work_dir = Path(work_dir)
    scalars = read_scalars(work_dir)
    if scalars.get('base_lr') == scalars.get('lr'):
        scalars.pop('base_lr', None)
    panels, axis = drawable(_panels(scalars)), validation_axis(scalars)
    body = [figures(_headline(scalars))]
    body.append(_table('Last validation', scalars, _validation(scalars), axis))
    if panels:
        caption = 'Unless the title says "Validation", curves are of the training images. '
        picture = plot_curves(panels)
        body.append(figure(Picture('curves', 'Curves', caption + how_drawn(panels), picture)))
    drawn = {id(curve) for panel in panels for curve in panel.curves.values()}
    others = [name for name in _training(scalars) if id(scalars[name]) not in drawn]
    body.append(_table('Training: logged once, or unchanged', scalars, others, 'step'))
    body += [figure(picture) for picture in latest_pictures(work_dir, axis)]
    training = [steps[-1] for name, (steps, _) in scalars.items() if not name.startswith('val/')]
    summary = f'{max(training):,} steps so far.' if training else 'No training step was logged.'
    path = work_dir / 'run.html'
    write_atomic(path, page(f'Run {work_dir.absolute().name}', summary, '\n'.join(body)).encode())
    return path


def _headline(scalars: Scalars) -> list[tuple[str, str, str]]:
    """The last value of the loss and of some validation metrics, as (kind, value, label)."""
    names = [name for name in scalars if name == 'loss']
    names += [name for name in _validation(scalars) if not name.endswith('_constant')][:3]
    return [('', _last(scalars, name), _label(name)) for name in names]


def _last(scalars: Scalars, name: str) -> str:
    return value_of(name, scalars[name][1][-1])


def _label(name: str) -> str:
    return f'{name_of(name)}\n{"validation" if name.startswith("val/") else "training"}'


def _validation(scalars: Scalars) -> list[str]:
    known = [f'val/{name}' for name in NAMES]
    found = [n for n in scalars if n.startswith('val/') and n.removeprefix('val/') not in NOT_SHOWN]
    return sorted(found, key=lambda n: known.index(n) if n in known else len(known))


def _table(title: str, scalars: Scalars, names: list[str], unit: str) -> str:
    """A section with the last value of each name; '' without names."""
    rows = [(name_of(n), _last(scalars, n), f'{unit} {scalars[n][0][-1]:,}') for n in names]
    return section(title, table((), rows, ('', 'number', 'note'))) if rows else ''


def _training(scalars: Scalars) -> list[str]:
    return [n for n in scalars if not n.startswith('val/') and n not in NOT_SHOWN]


def _panels(scalars: Scalars) -> list[Panel]:
    panels = []
    for title, pattern in PANELS:
        chosen = {name: xy for name, xy in scalars.items() if re.fullmatch(pattern, name)}
        labels = [name_of(name) for name in chosen]
        shared = {label.rpartition(', ')[0] for label in labels}
        if len(labels) > 1 and len(shared) == 1 and '' not in shared:  # 'accuracy, main branch'
            title = shared.pop().capitalize()
            labels = [label.rpartition(', ')[2] for label in labels]
        curves = dict(zip(labels, chosen.values(), strict=True))
        usage = title == 'Codebook in use'
        panels.append(Panel(title, curves, percent=any(map(is_percent, chosen)), whole=usage))
    axis = validation_axis(scalars)
    groups: dict[str, dict[str, str]] = {}  # title -> label -> name
    for name in _validation(scalars):
        title, _, label = name_of(name).partition(', ')  # 'AP of boxes, small objects'
        groups.setdefault(title, {})[label or 'all'] = name
    for title, names in groups.items():
        curves = {label: scalars[name] for label, name in names.items()}
        percent = any(map(is_percent, names.values()))
        panels.append(Panel(f'Validation: {title}', curves, axis, percent=percent))
    return panels


def latest_pictures(work_dir: Path, axis: str = 'step') -> list[Picture]:
    """The newest picture of each name that the run's visualizer stored, `MAX_PICTURES` at most;
    ``axis`` is the unit of the numbers in their file names."""
    newest: dict[str, tuple[str, int, Path]] = {}
    for path in work_dir.glob('*/vis_data/vis_image/*.png'):
        match = re.fullmatch(r'(.+)_(\d+)', path.stem)
        if match:
            name, entry = match[1], (path.parts[-4], int(match[2]), path)
            newest[name] = max(newest.get(name, entry), entry)
    pictures = []
    for name in sorted(newest, key=lambda n: (list(CAPTIONS).index(n) if n in CAPTIONS else 99, n)):
        _, step, path = newest[name]
        title, caption = CAPTIONS.get(name, (name_of(name), ''))
        text = f'{caption} {axis.capitalize()} {step}.'.strip()
        pictures.append(Picture(name, title, text, path.read_bytes()))
    return pictures[:MAX_PICTURES]
