"""Text: tokenizers, language models, classifiers and their recipes: `from warmstart.text import *`."""

from .. import notebook
from ..notebook import *  # noqa: F403
from .awd_lstm import AWD_LSTM
from .blocks import TextBlock
from .classifier_learner import text_classifier_learner
from .conll import read_conll
from .data import TextDataBunch
from .files import get_text_files
from .hub import hf_tokenizer
from .interpretation import TextInterpretation
from .language_model import get_language_model
from .lm_learner import language_model_learner
from .numericalize import Numericalize
from .regularizer import RNNRegularizer
from .resetter import ModelResetter
from .seq2seq_learner import seq2seq_learner
from .seq2seq_learning import Seq2SeqLearner
from .seq2seq_loss import BLEU, Seq2SeqLoss
from .subword import SubwordTokenizer
from .teacher_forcing import TeacherForcing
from .text_learner import LMLearner, TextLearner
from .token_blocks import TokenCategoryBlock, WordsBlock
from .token_classifier_learner import token_classifier_learner
from .token_learner import TokenLearner
from .token_metrics import EntityF1, TokenAccuracy
from .tokenizer import WordTokenizer
from .transformer import TransformerLM

__all__ = [
    *notebook.__all__,
    "AWD_LSTM",
    "BLEU",
    "EntityF1",
    "LMLearner",
    "ModelResetter",
    "Numericalize",
    "RNNRegularizer",
    "Seq2SeqLearner",
    "Seq2SeqLoss",
    "SubwordTokenizer",
    "TeacherForcing",
    "TextBlock",
    "TextDataBunch",
    "TextInterpretation",
    "TextLearner",
    "TokenAccuracy",
    "TokenCategoryBlock",
    "TokenLearner",
    "TransformerLM",
    "WordTokenizer",
    "WordsBlock",
    "get_language_model",
    "get_text_files",
    "hf_tokenizer",
    "language_model_learner",
    "read_conll",
    "seq2seq_learner",
    "text_classifier_learner",
    "token_classifier_learner",
]
