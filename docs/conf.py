"""Sphinx: ``sphinx-build -W docs docs/_build`` writes HTML (extra ``docs``)."""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

import beitv2_mm

project = 'beitv2_mm'
author = 'the beitv2_mm contributors'
version = release = beitv2_mm.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = 'beitv2_mm'
html_static_path = ['_static']
html_css_files = ['wide.css']

myst_heading_anchors = 3
autodoc_member_order = 'bysource'
autodoc_typehints_format = 'short'
autodoc_preserve_defaults = True
default_role = 'literal'  # docstrings put names in single backticks

CONFIGS = Path(__file__).parents[1] / 'configs'


def show_recipes(app: Sphinx, page: str, source: list[str]) -> None:
    """The READMEs of configs/, which lie outside of docs/, are the pages recipes/NAME."""
    folder, name = os.path.split(page)
    if folder == 'recipes':
        text = (CONFIGS / name / 'README.md').read_text(encoding='utf-8')
        text = re.sub(r'\]\((\w+\.py)\)', rf'](../../configs/{name}/\1)', text)
        source[0] = re.sub(r'\.\./(\w+)/README\.md', r'\1.md', text)
        return
    recipes = os.path.relpath('recipes', folder or '.')
    source[0] = re.sub(r'(\.\./)+configs/(\w+)/README\.md', rf'{recipes}/\2.md', source[0])


def skip_fields(app: Sphinx, what: str, name: str, member: object, *_: object) -> bool | None:
    """Fields of named tuples: the signature lists them."""
    return type(member).__name__ == '_tuplegetter' or None


def setup(app: Sphinx) -> None:
    app.connect('source-read', show_recipes)
    app.connect('autodoc-skip-member', skip_fields)
