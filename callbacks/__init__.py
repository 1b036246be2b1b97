"""Callbacks: everything that happens around the training loop's few lines."""

from .activation_stats import ActivationStats
from .averaging import EMA, SWA
from .batch_size import BatchSizeSchedule
from .batchnorm import BnFreeze
from .checkpointing import GradientCheckpointing
from .core import Callback, CancelBackward, CancelBatch, CancelEpoch, CancelFit, CancelStep, CancelTrain, CancelValidate
from .csv_logger import CSVLogger
from .detect_anomaly import AnomalyError, DetectAnomaly
from .evaluate import Evaluate
from .fetch_preds import FetchPreds
from .gradient_stats import GradientStats
from .gradients import SAM, GradientAccumulation, GradientClip
from .hooks import Hook, HookCallback, Hooks, hook_output, hook_outputs
from .limits import LimitBatches, OverfitBatches, StopAfter, ValidateEvery
from .lr_find import LRFinder, minimum, slide, steep, valley
from .memory import MemoryUse
from .mixing import CutMix, MixUp
from .mlflow_logger import MLflowLogger
from .precision import ChannelsLast, MixedPrecision
from .profiler import Profiler
from .progress import ProgressBar
from .progressive_resize import ProgressiveResize
from .recorder import Recorder
from .run_logger import RunLogger
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
from .show_graph import ShowGraph
from .tensorboard_logger import TensorBoardLogger
from .torch_scheduler import TorchScheduler
from .trackers import EarlyStopping, ReduceLROnPlateau, SaveModel, TerminateOnNaN
from .unfreeze import Unfreeze
from .wandb_logger import WandbLogger

__all__ = [
    "EMA",
    "SAM",
    "SWA",
    "ActivationStats",
    "AnomalyError",
    "BatchSizeSchedule",
    "BnFreeze",
    "CSVLogger",
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
    "DetectAnomaly",
    "EarlyStopping",
    "Evaluate",
    "FetchPreds",
    "GradientAccumulation",
    "GradientCheckpointing",
    "GradientClip",
    "GradientStats",
    "Hook",
    "HookCallback",
    "Hooks",
    "LRFinder",
    "LimitBatches",
    "MLflowLogger",
    "MemoryUse",
    "MixUp",
    "MixedPrecision",
    "OverfitBatches",
    "ParamScheduler",
    "Profiler",
    "ProgressBar",
    "ProgressiveResize",
    "Recorder",
    "ReduceLROnPlateau",
    "RunLogger",
    "SaveModel",
    "ShowGraph",
    "StopAfter",
    "TensorBoardLogger",
    "TerminateOnNaN",
    "TorchScheduler",
    "Unfreeze",
    "ValidateEvery",
    "WandbLogger",
    "combine_scheds",
    "combined_cos",
    "combined_lin",
    "flat_cos",
    "hook_output",
    "hook_outputs",
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
