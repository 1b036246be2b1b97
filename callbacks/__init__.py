"""Callbacks: everything that happens around the training loop's few lines."""

from .batchnorm import BnFreeze
from .core import (
    Callback,
    CancelBackward,
    CancelBatch,
    CancelEpoch,
    CancelFit,
    CancelStep,
    CancelTrain,
    CancelValidate,
)
from .evaluate import Evaluate
from .lr_find import LRFinder, minimum, slide, steep, valley
from .progress import ProgressBar
from .recorder import Recorder
from .schedule import (
    ParamScheduler,
    combine_scheds,
    combined_cos,
    sched_cos,
    sched_exp,
    sched_lin,
    sched_no,
    sched_poly,
)

__all__ = [
    "BnFreeze",
    "Callback",
    "CancelBackward",
    "CancelBatch",
    "CancelEpoch",
    "CancelFit",
    "CancelStep",
    "CancelTrain",
    "CancelValidate",
    "Evaluate",
    "LRFinder",
    "ParamScheduler",
    "ProgressBar",
    "Recorder",
    "combine_scheds",
    "combined_cos",
    "minimum",
    "sched_cos",
    "sched_exp",
    "sched_lin",
    "sched_no",
    "sched_poly",
    "slide",
    "steep",
    "valley",
]
