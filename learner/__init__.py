"""The Learner, and the losses, metrics and optimizers it works with."""

from .checkpoint import Checkpoint
from .distributed import launch, rank0_first
from .ensemble import Ensemble
from .export import load_learner
from .features import Embeddings, nearest
from .inference import Prediction
from .initialisation import lsuv_init
from .interpretation import Interpretation
from .interpretation_labels import ClassificationInterpretation, MultiLabelInterpretation
from .layer_decay import layer_decay, split_by_block
from .layerwise import Lamb, Lars
from .learner import Learner
from .lookahead import Lookahead, ranger
from .losses import BCEWithLogitsLoss, CrossEntropyLoss, FocalLoss, L1Loss, LabelSmoothingCrossEntropy, MSELoss
from .losses_combined import CombinedLoss
from .losses_overlap import DiceLoss
from .metrics import accuracy, accuracy_multi, error_rate, top_k_accuracy
from .metrics_collected import APScore, APScoreBinary, RocAuc, RocAucBinary, SpearmanCorrCoef, sklearn_metric
from .metrics_confusion import (
    BalancedAccuracy,
    CohenKappa,
    F1Score,
    FBeta,
    Jaccard,
    MatthewsCorrCoef,
    Precision,
    Recall,
)
from .metrics_overlap import Dice, DiceMulti, JaccardCoeff, JaccardCoeffMulti, foreground_acc
from .metrics_running import ExplainedVariance, PearsonCorrCoef, Perplexity, R2Score, exp_rmspe, mae, mse, rmse
from .metrics_text import CorpusBLEU
from .optim import SGD, Adagrad, Adam, AdamW, NAdam, RAdam, RMSprop, trainable_params
from .random_state import set_seed
from .ranks import RankError

__all__ = [
    "SGD",
    "APScore",
    "APScoreBinary",
    "Adagrad",
    "Adam",
    "AdamW",
    "BCEWithLogitsLoss",
    "BalancedAccuracy",
    "Checkpoint",
    "ClassificationInterpretation",
    "CohenKappa",
    "CombinedLoss",
    "CorpusBLEU",
    "CrossEntropyLoss",
    "Dice",
    "DiceLoss",
    "DiceMulti",
    "Embeddings",
    "Ensemble",
    "ExplainedVariance",
    "F1Score",
    "FBeta",
    "FocalLoss",
    "Interpretation",
    "Jaccard",
    "JaccardCoeff",
    "JaccardCoeffMulti",
    "L1Loss",
    "LabelSmoothingCrossEntropy",
    "Lamb",
    "Lars",
    "Learner",
    "Lookahead",
    "MSELoss",
    "MatthewsCorrCoef",
    "MultiLabelInterpretation",
    "NAdam",
    "PearsonCorrCoef",
    "Perplexity",
    "Precision",
    "Prediction",
    "R2Score",
    "RAdam",
    "RMSprop",
    "RankError",
    "Recall",
    "RocAuc",
    "RocAucBinary",
    "SpearmanCorrCoef",
    "accuracy",
    "accuracy_multi",
    "error_rate",
    "exp_rmspe",
    "foreground_acc",
    "launch",
    "layer_decay",
    "load_learner",
    "lsuv_init",
    "mae",
    "mse",
    "nearest",
    "ranger",
    "rank0_first",
    "rmse",
    "set_seed",
    "sklearn_metric",
    "split_by_block",
    "top_k_accuracy",
    "trainable_params",
]
