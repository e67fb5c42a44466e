"""Memory of data loaders, measured in a process of its own: it has to import this module."""

from beitv2_mm.benchmark.memory import family_memory
from beitv2_mm.benchmark.work import OURS
from beitv2_mm.benchmark.workers import Loader


class ListLoader(Loader):
    """Its index is a Python list, which every worker copies page by page as it reads it."""

    def _dataset(self, implementation):
        dataset = super()._dataset(implementation)
        dataset.data_list = [dataset.get_data_info(i) for i in range(len(dataset))]
        dataset.serialize_data = False
        return dataset


def family_memory_of(*loaders):
    """What each adds, and the memory of this process before all of them."""
    before = family_memory()
    return before, *(loader.memory_after_an_epoch(OURS) - before for loader in loaders)
