"""What a notebook of any domain needs: `from warmstart.vision import *` gives this and the domain's own names."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from . import callbacks, data, learner
from .callbacks import *  # noqa: F403
from .data import *  # noqa: F403
from .data.lazy import LazyModule
from .learner import *  # noqa: F403

plt = LazyModule("matplotlib.pyplot")

_DATA = [name for name in data.__all__ if name != "Dataset"]  # which a notebook has from torch, to derive its own from

__all__ = ["F", "Path", "nn", "np", "pd", "plt", "torch", *_DATA, *callbacks.__all__, *learner.__all__]
