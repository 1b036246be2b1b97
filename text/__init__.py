"""Text: tokenizers, language models, classifiers and their recipes: `from warmstart.text import *`."""

from .. import notebook
from ..notebook import *  # noqa: F403
from .awd_lstm import AWD_LSTM
from .blocks import TextBlock
from .classifier_learner import text_classifier_learner
from .data import TextDataBunch
from .files import get_text_files
from .hub import hf_tokenizer
from .language_model import get_language_model
from .lm_learner import language_model_learner
from .numericalize import Numericalize
from .regularizer import RNNRegularizer
from .resetter import ModelResetter
from .subword import SubwordTokenizer
from .text_learner import LMLearner, TextLearner
from .tokenizer import WordTokenizer
from .transformer import TransformerLM

__all__ = [
    *notebook.__all__,
    "AWD_LSTM",
    "LMLearner",
    "ModelResetter",
    "Numericalize",
    "RNNRegularizer",
    "SubwordTokenizer",
    "TextBlock",
    "TextDataBunch",
    "TextLearner",
    "TransformerLM",
    "WordTokenizer",
    "get_language_model",
    "get_text_files",
    "hf_tokenizer",
    "language_model_learner",
    "text_classifier_learner",
]
