"""A page that needs no other file: point at a patch of an image and see where its attention goes.

Its content is attention_page.html, with the image and the attention in place of @image@ and @data@.
"""

import base64
import io
import json
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from beitv2_mm.visualization.attention_pictures import colour_table
from beitv2_mm.visualization.page import page, section

MAX_VALUES = 2_500_000  # attention values in one page, of one byte each
MAX_PATCHES = 2000


def attention_page(
    image: Image.Image,
    attention: np.ndarray,
    grid: tuple[int, int],
    start: tuple[int, int],
    title: str,
    caption: str,
    warning: str = '',
) -> str:
    """Attention (heads, N, N) from every patch to every patch -> HTML text.

    The page holds the mean of the heads, and each head where that keeps it below some megabytes.

    Args:
        grid: (rows, columns) of the N patches.
        start: (row, column) of the patch shown first.
        warning: a line in red above the image.

    Raises:
        ValueError: so many patches that the page would be too large.
    """
    heads, count = attention.shape[:2]
    if count > MAX_PATCHES:
        raise ValueError(
            f'A page of all {count} patches would be too large: choose a smaller input size, for '
            f'at most {MAX_PATCHES} patches.'
        )
    shown, names = attention.mean(axis=0)[None], ['mean of heads']
    if (heads + 1) * count**2 <= MAX_VALUES:
        shown = np.concatenate([shown, attention])
        names += [f'head {index}' for index in range(heads)]
    else:
        caption += '. Its heads are left out to keep this page small: choose a smaller input size.'
    scales, lows = shown.max(axis=2), shown.min(axis=2, keepdims=True)
    spans = np.maximum(scales[..., None] - lows, np.finfo(np.float32).tiny)
    levels = ((shown - lows) / spans * 255).round().astype(np.uint8)
    data = dict(
        rows=grid[0],
        columns=grid[1],
        start=start,
        names=names,
        scales=[[float(f'{value:.3g}') for value in values] for values in scales],
        maps=[_base64(values.tobytes()) for values in levels],
        colours=colour_table().tolist(),
    )
    photograph = io.BytesIO()
    image.save(photograph, 'JPEG', quality=88)
    body = Path(__file__).with_suffix('.html').read_text(encoding='utf-8')
    for name, text in (
        ('warning', escape(warning)),
        ('image', _base64(photograph.getvalue())),
        ('data', json.dumps(data, separators=(',', ':'))),
    ):
        body = body.replace(f'@{name}@', text)
    return page(title, caption, section('Point at a patch', body))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
