"""Work directory of a run -> one page with its curves, codebook usage, learning rate and latest
pictures; it needs no other file."""

import re
from os import PathLike
from pathlib import Path

from beitv2_mm.files import write_atomic
from beitv2_mm.visualization.curves import (
    Panel,
    Scalars,
    drawable,
    plot_curves,
    read_scalars,
    validation_axis,
)
from beitv2_mm.visualization.names import is_percent, name_of, value_of
from beitv2_mm.visualization.page import figure, figures, page, section, table
from beitv2_mm.visualization.report import Picture

# What a panel shows: its title, and the names in it (training's).
PANELS = (
    ('Losses', r'(.*\.)?loss(_.*)?'),
    ('Cosine to the teacher', r'cosine'),
    ('Accuracy', r'accuracy.*|(.*\.)?acc_.*'),
    ('Codebook in use', r'codebook_usage_ema'),
    ('Codebook: perplexity', r'codebook_perplexity_ema'),
    ('Learning rate', r'(base_)?lr'),
    ('Gradient norm', r'grad_norm'),
)
NOT_SHOWN = {'time', 'data_time', 'memory', 'epoch', 'iter'}
CAPTIONS = {
    'code_maps': ('Images as codes', 'A colour stands for a code.'),
    'code_atlas': ('What codes look like', 'Each row is a code, with patches that have it.'),
    'code_usage': ('How often codes are used', 'In the validation images.'),
    'mim_predictions': (
        'What is predicted of hidden patches',
        'Real patches of other images stand for the codes.',
    ),
    'segmentation': ('Segmentation', 'True classes where known, and predicted ones.'),
    'attention': (
        'Attention',
        'From the middle patch to all patches. Bright is more; each map spans its own range.',
    ),
}


def write_run_page(work_dir: str | PathLike) -> Path:
    """Writes ``work_dir``/run.html from what its LocalVisBackend wrote; returns its path.

    Raises:
        FileNotFoundError: the run logged nothing.
    """
    work_dir = Path(work_dir)
    scalars = read_scalars(work_dir)
    panels = drawable(_panels(scalars))
    body = [figures(_headline(scalars)), _values(scalars, panels)]
    pictures = latest_pictures(work_dir)
    if panels:
        caption = (
            'Thin lines are logged values, thick ones the mean over neighbouring values. '
            'Without "validation" in the title, they are of the images trained on.'
        )
        pictures.insert(0, Picture('curves', 'Curves', caption, plot_curves(panels)))
    body += [figure(picture) for picture in pictures]
    training = [steps[-1] for name, (steps, _) in scalars.items() if not name.startswith('val/')]
    summary = f'{max(training, default=0):,} steps so far.'
    path = work_dir / 'run.html'
    write_atomic(path, page(f'Run {work_dir.absolute().name}', summary, '\n'.join(body)).encode())
    return path


def _headline(scalars: Scalars) -> list[tuple[str, str, str]]:
    """The last value of the loss and of some validation metrics, as (kind, value, label)."""
    names: list[str] = [n for n in ('loss', 'codebook_usage_ema') if n in scalars]
    names += [name for name in _validation(scalars) if not name.endswith('_constant')][:6]
    return [('', _last(scalars, name), _label(name)) for name in names]


def _last(scalars: Scalars, name: str) -> str:
    return value_of(name, scalars[name][1][-1])


def _label(name: str) -> str:
    return f'{name_of(name)}\n{"validation" if name.startswith("val/") else "training"}'


def _validation(scalars: Scalars) -> list[str]:
    return [
        name
        for name in scalars
        if name.startswith('val/') and name.removeprefix('val/') not in NOT_SHOWN
    ]


def _values(scalars: Scalars, panels: list[Panel]) -> str:
    """Tables of the last validation, and of what training logged and no curve shows."""
    axis = validation_axis(scalars)
    drawn = {label for panel in panels for label in panel.curves}
    others = [n for n in _training(scalars) if name_of(n) not in drawn]
    content = ''
    for title, names, unit in (
        ('Last validation', _validation(scalars), axis),
        ('Logged once, or unchanged', others, 'step'),
    ):
        rows = [(name_of(n), _last(scalars, n), f'{unit} {scalars[n][0][-1]:,}') for n in names]
        if rows:
            content += section(title, table((), rows, ('', 'number', 'note')))
    return content


def _training(scalars: Scalars) -> list[str]:
    return [n for n in scalars if not n.startswith('val/') and n not in NOT_SHOWN]


def _panels(scalars: Scalars) -> list[Panel]:
    panels = []
    for title, pattern in PANELS:
        chosen = {name: xy for name, xy in scalars.items() if re.fullmatch(pattern, name)}
        if title == 'Learning rate' and len({tuple(values) for _, values in chosen.values()}) == 1:
            chosen.pop('base_lr', None)
        curves = {name_of(name): xy for name, xy in chosen.items()}
        usage = title == 'Codebook in use'
        panels.append(Panel(title, curves, percent=any(map(is_percent, chosen)), whole=usage))
    axis = validation_axis(scalars)
    for name in _validation(scalars):
        title = f'Validation: {name_of(name)}'
        panels.append(Panel(title, {name: scalars[name]}, axis, percent=is_percent(name)))
    return panels


def latest_pictures(work_dir: Path, limit: int = 12) -> list[Picture]:
    """The newest picture of each name that the run's visualizer stored, ``limit`` at most."""
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
        text = f'{caption} Step {step}.'.strip()
        pictures.append(Picture(name, title, text, path.read_bytes()))
    return pictures[:limit]
