"""A page that needs no other file: hover a patch of an image, see where its attention goes."""

import base64
import io
import json
from html import escape

import numpy as np
from PIL import Image

from beitv2_mm.visualization.attention_pictures import colour_table
from beitv2_mm.visualization.canvas import to_png
from beitv2_mm.visualization.page import page, section

LEVELS = 64  # of attention: fewer make the file smaller, more are not told apart
MAX_VALUES = 2_500_000  # attention values in one page, one byte each before compression
MAX_PATCHES = 2000

BODY = """<style>
.view {{ position: relative; width: min(100%, 640px); margin: 0 0 14px; touch-action: none; }}
.view img {{ min-width: 0; width: 100%; }}
.view canvas {{ position: absolute; inset: 0; width: 100%; height: 100%;
  image-rendering: pixelated; }}
.view div {{ position: absolute; outline: 2px solid #fff; box-shadow: 0 0 0 4px #141414;
  pointer-events: none; }}
.view:focus {{ outline: 3px solid var(--accent); outline-offset: 2px; }}
.heads button {{ font: inherit; color: inherit; background: var(--code); cursor: pointer;
  border: 1px solid var(--line); border-radius: 8px; padding: 3px 11px; margin: 0 4px 6px 0; }}
.heads button[aria-pressed=true] {{ background: var(--accent); color: var(--card); }}
.warning {{ color: #d62828; font-weight: 650; }}
</style>
{warning}<div class="view" tabindex="0" aria-label="Image; arrow keys move the patch">
<img alt="The image" src="{image}"><canvas></canvas><div></div></div>
<div class="heads"></div>
<label>strength of the colours <input type="range" min="0" max="100" value="70"></label>
<p class="note" id="where"></p>
<script>
const {{rows, columns, start, names, scales, maps, colours}} = {data};
const view = document.querySelector('.view'), canvas = view.querySelector('canvas');
const mark = view.querySelector('div'), strength = document.querySelector('input');
const context = canvas.getContext('2d'), cache = [];
let [row, column] = start, head = 0;
canvas.width = columns; canvas.height = rows;
strength.oninput = () => canvas.style.opacity = strength.value / 100;
strength.oninput();

function read(index) {{
  cache[index] ??= new Promise(resolve => {{
    const picture = new Image();
    picture.onload = () => {{
      const sheet = document.createElement('canvas');
      sheet.width = picture.width; sheet.height = picture.height;
      const pen = sheet.getContext('2d');
      pen.drawImage(picture, 0, 0);
      resolve(pen.getImageData(0, 0, picture.width, picture.height).data);
    }};
    picture.src = 'data:image/png;base64,' + maps[index];
  }});
  return cache[index];
}}

async function draw() {{
  const shown = head, values = await read(shown);
  if (shown !== head) return;
  const query = row * columns + column, count = rows * columns;
  const pixels = context.createImageData(columns, rows);
  for (let key = 0; key < count; key++) {{
    const colour = colours[Math.round(values[4 * (query * count + key)] / 4)];
    pixels.data.set([...colour, 255], 4 * key);
  }}
  context.putImageData(pixels, 0, 0);
  Object.assign(mark.style, {{left: 100 * column / columns + '%', top: 100 * row / rows + '%',
    width: 100 / columns + '%', height: 100 / rows + '%'}});
  document.querySelector('#where').textContent = `Patch at row ${{row}}, column ${{column}}; ` +
    `${{names[head]}}: the brightest patch gets ${{(100 * scales[head][query]).toFixed(1)}} % of ` +
    `its attention.`;
}}

function move(newRow, newColumn) {{
  row = Math.min(Math.max(newRow, 0), rows - 1);
  column = Math.min(Math.max(newColumn, 0), columns - 1);
  draw();
}}
function point(event) {{
  const box = view.getBoundingClientRect();
  move(Math.floor((event.clientY - box.top) / box.height * rows),
    Math.floor((event.clientX - box.left) / box.width * columns));
}}
view.onpointermove = view.onpointerdown = point;
view.onkeydown = event => {{
  const step = {{ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}};
  if (!(event.key in step)) return;
  event.preventDefault();
  move(row + step[event.key][0], column + step[event.key][1]);
}};
names.forEach((name, index) => {{
  const button = document.createElement('button');
  button.textContent = name;
  button.setAttribute('aria-pressed', index === 0);
  button.onclick = () => {{
    document.querySelectorAll('.heads button').forEach(
      other => other.setAttribute('aria-pressed', other === button));
    head = index;
    draw();
  }};
  document.querySelector('.heads').append(button);
}});
draw();
</script>"""


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
    levels = ((shown - lows) / spans * (LEVELS - 1)).round().astype(np.uint8)
    data = dict(
        rows=grid[0],
        columns=grid[1],
        start=start,
        names=names,
        scales=[[float(f'{value:.3g}') for value in values] for values in scales],
        maps=[_base64(to_png(Image.fromarray(4 * values))) for values in levels],
        colours=colour_table(LEVELS).tolist(),
    )
    photograph = io.BytesIO()
    image.save(photograph, 'JPEG', quality=88)
    body = BODY.format(
        warning=f'<p class="warning">{escape(warning)}</p>\n' if warning else '',
        image='data:image/jpeg;base64,' + _base64(photograph.getvalue()),
        data=json.dumps(data, separators=(',', ':')),
    )
    return page(title, caption, section('Point at a patch', body))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
