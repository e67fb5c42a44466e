"""HTML pages that need no other file, and their parts."""

import base64
from collections.abc import Sequence
from html import escape

from beitv2_mm.visualization.report import Picture

STYLE = """
:root { color-scheme: light dark; --ink: #1d232b; --soft: #5f6b78; --line: #e2e6ea;
  --page: #f6f7f9; --card: #ffffff; --accent: #1f6fb2; --code: #f0f2f5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ed; --soft: #9aa5b1; --line: #2d343d;
  --page: #14181d; --card: #1b2027; --accent: #6cb2eb; --code: #242a32; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.015em; }
h2 { font-size: 1.15rem; margin: 0 0 12px; }
.lead { color: var(--soft); margin: 0 0 28px; max-width: 70ch; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 22px 24px; margin: 0 0 20px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 16px;
  margin: 0 0 20px; }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 16px 20px; }
.figures b { display: block; font-size: 1.75rem; line-height: 1.2; font-weight: 650;
  font-variant-numeric: tabular-nums; letter-spacing: -0.02em; }
.figures .main { border-color: var(--accent); }
.figures .main b { color: var(--accent); }
.figures span, .note, figcaption { color: var(--soft); font-size: 0.9rem; }
.verdict { border-left: 5px solid var(--soft); padding: 16px 20px; }
.verdict.good { border-left-color: #009e73; }
.verdict.bad { border-left-color: #d55e00; }
.verdict p { margin: 0 0 6px; max-width: 90ch; }
.verdict p:last-child { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-size: 0.8rem; color: var(--soft); font-weight: 600; }
th, td { padding: 7px 16px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.note { width: 45%; }
tr.total td { font-weight: 650; }
figure { margin: 0; overflow-x: auto; }
figcaption { margin: 0 0 14px; max-width: 75ch; }
img { width: 100%; min-width: 600px; max-width: 1040px; height: auto; display: block; }
code, pre { font: 0.86rem/1.5 ui-monospace, 'SF Mono', Menlo, 'DejaVu Sans Mono', monospace; }
td code { overflow-wrap: anywhere; }
pre { background: var(--code); border-radius: 8px; padding: 10px 14px; margin: 4px 0 16px;
  white-space: pre-wrap; overflow-wrap: anywhere; }
ul { margin: 0; padding-left: 20px; }
li { margin: 0 0 6px; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr));
  gap: 0 20px; align-items: start; }
summary { cursor: pointer; font-weight: 600; }
details table { margin-top: 12px; }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
<h1>{title}</h1>
<p class="lead">{summary}</p>
{body}
</main></body>
</html>
"""


def page(title: str, summary: str, body: str) -> str:
    """A whole page; `body` is HTML, the others are plain text."""
    return PAGE.format(title=escape(title), summary=escape(summary), style=STYLE, body=body)


def section(title: str, body: str) -> str:
    """A card with a heading; `body` is HTML."""
    return f'<section><h2>{escape(title)}</h2>\n{body}\n</section>'


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str], total: bool = False
) -> str:
    """A table of plain text; `kinds` are the CSS classes of the columns, and `total` sets the last
    row in bold."""
    lines = []
    if head:
        cells = (f'<th class="{k}">{escape(t)}</th>' for k, t in zip(kinds, head, strict=True))
        lines.append('<tr>' + ''.join(cells) + '</tr>')
    for index, row in enumerate(rows):
        mark = ' class="total"' if total and index == len(rows) - 1 else ''
        cells = (f'<td class="{k}">{escape(t)}</td>' for k, t in zip(kinds, row, strict=True))
        lines.append(f'<tr{mark}>' + ''.join(cells) + '</tr>')
    return '<div class="scroll"><table>' + '\n'.join(lines) + '</table></div>'


def figures(values: Sequence[tuple[str, str, str]]) -> str:
    """A row of large numbers, each (kind, value, label). Labels may have several lines; a number of
    the kind 'main' is highlighted."""
    cells = (
        f'<div class="{kind}"><b>{escape(value)}</b>'
        + '<br>'.join(f'<span>{escape(line)}</span>' for line in label.splitlines())
        + '</div>'
        for kind, value, label in values
    )
    return '<div class="figures">' + ''.join(cells) + '</div>'


def figure(picture: Picture) -> str:
    """A section with one picture."""
    data = base64.b64encode(picture.png).decode()
    return section(
        picture.title,
        f'<figure><figcaption>{escape(picture.caption)}</figcaption>'
        f'<img alt="{escape(picture.title)}" src="data:image/png;base64,{data}"></figure>',
    )


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(42), duration(185), duration(7620)
    ('42 s', '3 min 05 s', '2 h 07 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f'{whole} s'
    if whole < 3600:
        return f'{whole // 60} min {whole % 60:02d} s'
    return f'{whole // 3600} h {whole % 3600 // 60:02d} min'
