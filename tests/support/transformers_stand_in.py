"""Stand-ins for transformers and pycocotools, which mmpretrain's multimodal models import."""

from pathlib import Path

# Each version lacks the names that mmpretrain 1.2.0 asks of its `modeling_utils`.
LACKS = {
    '4.49.0': (),
    '4.57.6': ('GenerationMixin', 'apply_chunking_to_forward'),
    '5.24.0': ('GenerationMixin', 'apply_chunking_to_forward', 'PretrainedConfig'),
}
MODULES = (
    '__init__', 'activations', 'modeling_outputs', 'modeling_utils', 'utils/__init__',
    'models/__init__', 'models/auto/__init__', 'models/auto/auto_factory', 'models/bert/__init__',
    'models/bert/configuration_bert', 'models/opt/__init__', 'models/opt/configuration_opt',
)  # fmt: skip
ANY_NAME = """
import logging
import sys
from torch import nn

logging.get_logger = logging.getLogger  # transformers.utils.logging

classes = sys.modules['transformers'].__dict__.setdefault('classes', {{}})
methods = dict(from_pretrained=None, from_config=None)
base = classes.setdefault('_BaseAutoModelClass', type('_BaseAutoModelClass', (nn.Module,), methods))

def decorator_factory(*args, **kwargs):
    return lambda function: function

def __getattr__(name):
    if name.startswith('__') or name in {lacks}:
        raise AttributeError(name)
    if name[0].islower():
        return decorator_factory
    bases = (base if name.startswith('Auto') else nn.Module,)
    return classes.setdefault(name, type(name, bases, methods))
"""


def write_stand_in(folder: Path, version: str) -> None:
    """Packages for PYTHONPATH that have every name except those that the version lacks."""
    for module in MODULES:
        file = folder / f'transformers/{module}.py'
        file.parent.mkdir(parents=True, exist_ok=True)
        lacks = LACKS[version] if module == 'modeling_utils' else ()
        file.write_text(ANY_NAME.format(lacks=lacks))
    (folder / 'pycocotools').mkdir()
    (folder / 'pycocotools/__init__.py').touch()
    (folder / 'pycocotools/coco.py').write_text('class COCO: pass')
    for name, number in (('transformers', version), ('pycocotools', '2.0.11')):
        metadata = folder / f'{name}-{number}.dist-info/METADATA'
        metadata.parent.mkdir()
        metadata.write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n')
