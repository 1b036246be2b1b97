"""Callbacks: everything that happens around the training loop's few lines."""

from .averaging import EMA, SWA
from .batchnorm import BnFreeze
from .checkpointing import GradientCheckpointing
from .core import Callback, CancelBackward, CancelBatch, CancelEpoch, CancelFit, CancelStep, CancelTrain, CancelValidate
from .evaluate import Evaluate
from .gradients import SAM, GradientAccumulation, GradientClip
from .limits import LimitBatches, OverfitBatches, StopAfter, ValidateEvery
from .lr_find import LRFinder, minimum, slide, steep, valley
from .mixing import CutMix, MixUp
from .precision import ChannelsLast, MixedPrecision
from .progress import ProgressBar
from .recorder import Recorder
from .schedule import (
    ParamScheduler,
    combine_scheds,
    combined_cos,
    combined_lin,
    flat_cos,
    sched_cos,
    sched_exp,
    sched_lin,
    sched_no,
    sched_poly,
    sgdr,
    warmup_cos,
    wsd,
)
from .schedule_plot import plot_schedule
from .torch_scheduler import TorchScheduler

__all__ = [
    "EMA",
    "SAM",
    "SWA",
    "BnFreeze",
    "Callback",
    "CancelBackward",
    "CancelBatch",
    "CancelEpoch",
    "CancelFit",
    "CancelStep",
    "CancelTrain",
    "CancelValidate",
    "ChannelsLast",
    "CutMix",
    "Evaluate",
    "GradientAccumulation",
    "GradientCheckpointing",
    "GradientClip",
    "LRFinder",
    "LimitBatches",
    "MixUp",
    "MixedPrecision",
    "OverfitBatches",
    "ParamScheduler",
    "ProgressBar",
    "Recorder",
    "StopAfter",
    "TorchScheduler",
    "ValidateEvery",
    "combine_scheds",
    "combined_cos",
    "combined_lin",
    "flat_cos",
    "minimum",
    "plot_schedule",
    "sched_cos",
    "sched_exp",
    "sched_lin",
    "sched_no",
    "sched_poly",
    "sgdr",
    "slide",
    "steep",
    "valley",
    "warmup_cos",
    "wsd",
]
