"""Where this package's configs, tools and model index lie."""

from pathlib import Path


def config_root() -> Path:
    """The folder that holds model-index.yml, configs/ and tools/.

    Raises:
        FileNotFoundError: the package was installed without them.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / '.mim', package.parent):  # an installed package's, a clone's
        if (folder / 'model-index.yml').is_file():
            return folder
    raise FileNotFoundError(
        f'There is no model-index.yml in {package / ".mim"} or {package.parent}: install the wheel '
        'or a clone (pip install -e .), or give configs and checkpoints by path.'
    )
