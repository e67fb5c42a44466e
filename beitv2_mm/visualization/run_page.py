"""Work directory of a run -> one page with its curves, codebook usage, learning rate and latest
pictures; it needs no other file."""

import re
from os import PathLike
from pathlib import Path

from beitv2_mm.files import write_atomic
from beitv2_mm.visualization.curves import Panel, Scalars, plot_curves, read_scalars
from beitv2_mm.visualization.page import figure, figures, page
from beitv2_mm.visualization.report import Picture

# What a panel shows: its title, the names in it (training's), whether they are percentages.
PANELS = (
    ('Losses', r'(.*\.)?loss(_.*)?', False),
    ('Cosine to the teacher', r'cosine', False),
    ('Accuracy', r'accuracy.*|(.*\.)?acc_.*', True),
    ('Codebook in use', r'codebook_usage_ema', True),
    ('Codebook: perplexity', r'codebook_perplexity_ema', False),
    ('Learning rate', r'(base_)?lr', False),
    ('Gradient norm', r'grad_norm', False),
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
    body = [figures(_headline(scalars))]
    body += [figure(picture) for picture in (_curves(scalars), *latest_pictures(work_dir))]
    last = max(steps[-1] for steps, _ in scalars.values())
    summary = f'{last} iterations so far. Thin lines: logged values. Thick ones: running means.'
    path = work_dir / 'run.html'
    write_atomic(path, page(f'Run {work_dir.absolute().name}', summary, '\n'.join(body)).encode())
    return path


def _headline(scalars: Scalars) -> list[tuple[str, str, str]]:
    """The last value of the loss and of each validation metric, as (kind, value, label)."""
    names: list[str] = [name for name in ('loss', 'codebook_usage_ema') if name in scalars]
    names += [n for n in _validation(scalars) if n.removeprefix('val/') not in names][:6]
    return [('', f'{scalars[name][1][-1]:.4g}', name) for name in names]


def _validation(scalars: Scalars) -> list[str]:
    return [
        name
        for name in scalars
        if name.startswith('val/') and name.removeprefix('val/') not in NOT_SHOWN
    ]


def _curves(scalars: Scalars) -> Picture:
    panels = []
    for title, pattern, is_percentage in PANELS:
        chosen = {name: xy for name, xy in scalars.items() if re.fullmatch(pattern, name)}
        if title == 'Learning rate' and len({tuple(values) for _, values in chosen.values()}) == 1:
            chosen.pop('base_lr', None)
        if chosen:
            panels.append(Panel(title, chosen, 'iteration', percent=is_percentage))
    for name in _validation(scalars):
        x_label = 'epoch' if 'epoch' in scalars else 'iteration'
        panels.append(
            Panel(f'Validation: {name.removeprefix("val/")}', {name: scalars[name]}, x_label)
        )
    return Picture('curves', 'Curves', '', plot_curves(panels))


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
        title, caption = CAPTIONS.get(name, (name, ''))
        text = f'{caption} Step {step}.'.strip()
        pictures.append(Picture(name, title, text, path.read_bytes()))
    return pictures[:limit]
