"""Data: describe it once with a `DataBlock`, get a `DataBunch` of loaders that knows how to show and decode itself."""

from .blocks import Block, CategoryBlock, MultiCategoryBlock, RegressionBlock
from .bunch import DataBunch
from .cache import Cache
from .cache_folder import clear_cache, list_caches
from .datablock import DataBlock, Datasets
from .dataset import Dataset
from .downloads import DownloadError, download_url, untar_data
from .getters import (
    AttrGetter,
    ColReader,
    FuncLabeller,
    ItemGetter,
    RegexLabeller,
    get_files,
    get_image_files,
    parent_label,
)
from .items import ItemError
from .loaders import DeviceLoader
from .splitters import (
    ColSplitter,
    EndSplitter,
    FileSplitter,
    FuncSplitter,
    GrandparentSplitter,
    IndexSplitter,
    KFoldSplitter,
    MaskSplitter,
    RandomSplitter,
    RandomSubsetSplitter,
    TrainTestSplitter,
)
from .transforms import Transform

__all__ = [
    "AttrGetter",
    "Block",
    "Cache",
    "CategoryBlock",
    "ColReader",
    "ColSplitter",
    "DataBlock",
    "DataBunch",
    "Dataset",
    "Datasets",
    "DeviceLoader",
    "DownloadError",
    "EndSplitter",
    "FileSplitter",
    "FuncLabeller",
    "FuncSplitter",
    "GrandparentSplitter",
    "IndexSplitter",
    "ItemError",
    "ItemGetter",
    "KFoldSplitter",
    "MaskSplitter",
    "MultiCategoryBlock",
    "RandomSplitter",
    "RandomSubsetSplitter",
    "RegexLabeller",
    "RegressionBlock",
    "TrainTestSplitter",
    "Transform",
    "clear_cache",
    "download_url",
    "get_files",
    "get_image_files",
    "list_caches",
    "parent_label",
    "untar_data",
]
