"""The Learner, and the losses, metrics and optimizers it works with."""

from .export import load_learner
from .inference import Prediction
from .interpretation import ClassificationInterpretation, Interpretation
from .learner import Learner
from .losses import BCEWithLogitsLoss, CrossEntropyLoss, FocalLoss, L1Loss, LabelSmoothingCrossEntropy, MSELoss
from .metrics import accuracy, accuracy_multi, error_rate, exp_rmspe, mae, mse, rmse, top_k_accuracy
from .metrics_collected import APScoreBinary, RocAuc, RocAucBinary, SpearmanCorrCoef, sklearn_metric
from .metrics_confusion import BalancedAccuracy, CohenKappa, F1Score, FBeta, MatthewsCorrCoef, Precision, Recall
from .metrics_running import ExplainedVariance, PearsonCorrCoef, Perplexity, R2Score
from .optim import SGD, AdamW, trainable_params
from .random_state import set_seed

__all__ = [
    "SGD",
    "APScoreBinary",
    "AdamW",
    "BCEWithLogitsLoss",
    "BalancedAccuracy",
    "ClassificationInterpretation",
    "CohenKappa",
    "CrossEntropyLoss",
    "ExplainedVariance",
    "F1Score",
    "FBeta",
    "FocalLoss",
    "Interpretation",
    "L1Loss",
    "LabelSmoothingCrossEntropy",
    "Learner",
    "MSELoss",
    "MatthewsCorrCoef",
    "PearsonCorrCoef",
    "Perplexity",
    "Precision",
    "Prediction",
    "R2Score",
    "Recall",
    "RocAuc",
    "RocAucBinary",
    "SpearmanCorrCoef",
    "accuracy",
    "accuracy_multi",
    "error_rate",
    "exp_rmspe",
    "load_learner",
    "mae",
    "mse",
    "rmse",
    "set_seed",
    "sklearn_metric",
    "top_k_accuracy",
    "trainable_params",
]
