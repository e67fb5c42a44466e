"""What the pages of this repository say: code blocks, commands, links and headings."""

import re
import shlex
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r'^```(\w*)[^\n]*\n(.*?)^```', re.M | re.S)
LINK = re.compile(r'!?\[[^\]]*\]\(([^()\s]+)\)')
SKIPPED = ('.', 'work_dirs', 'build', 'data', 'quickstart_out')


def pages() -> list[Path]:
    """Every Markdown file of the repository."""
    found = []
    for file in ROOT.rglob('*.md'):
        folders = file.relative_to(ROOT).parts[:-1]
        if not any(part.startswith('.') or part == '_build' for part in folders) and not (
            folders and folders[0].startswith(SKIPPED)
        ):
            found.append(file)
    return sorted(found)


class Command(NamedTuple):
    """One program call of a page."""

    page: str
    environment: dict[str, str]
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f'{self.page}: {" ".join(self.words)}'


def blocks(page: Path, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(page.read_text('utf-8')) if found == language]


def commands() -> list[Command]:
    """Those of all ``bash`` blocks, each once."""
    found: dict[tuple[str, ...], Command] = {}
    for page in pages():
        for block in blocks(page, 'bash'):
            for command in _split(str(page.relative_to(ROOT)), block):
                found.setdefault((*command.environment, *command.words), command)
    return list(found.values())


def _split(page: str, block: str) -> Iterator[Command]:
    for line in block.replace('\\\n', ' ').splitlines():
        for is_operator, group in groupby(
            shlex.split(line, comments=True), lambda word: word in ('&&', '||', '|', ';')
        ):
            if is_operator:
                continue
            words = list(group)
            environment = {}
            while words and re.match(r'[A-Z_]+=', words[0]):
                name, environment[name] = words.pop(0).split('=', 1)
            if words:
                yield Command(page, environment, tuple(words))


def links(page: Path) -> list[str]:
    """Targets of links and pictures, code left out."""
    text = re.sub(r'`[^`\n]*`', '', FENCE.sub('', page.read_text('utf-8')))
    return LINK.findall(text)


def headings(page: Path) -> list[str]:
    """With their #, outside of code."""
    return re.findall(r'^#+ .+$', FENCE.sub('', page.read_text('utf-8')), re.M)


def anchors(page: Path) -> set[str]:
    """What a link to a heading of this page says after its #."""
    texts = (re.sub(r'[`*]', '', heading.lstrip('# ')).lower() for heading in headings(page))
    return {re.sub(r'[^\w\- ]', '', text).replace(' ', '-') for text in texts}
