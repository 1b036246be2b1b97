"""The special tokens: what stands in a text's tokens besides its words, first in every vocabulary that is learned.

Howard & Ruder 2018 (arXiv:1801.06146) and fast.ai give them these names. Case and repetition become tokens of their
own, so that a vocabulary holds each word once, and a text can still be written again as it was.
"""

__all__ = ["BOS", "EOS", "FLD", "MAJ", "PAD", "PAD_ID", "REP", "SPECIAL", "UNK", "UP", "WREP"]

UNK = "xxunk"  # a word that is not in the vocabulary
PAD = "xxpad"  # fills up a batch of texts, at their ends
BOS = "xxbos"  # a text begins
EOS = "xxeos"  # a text ends; no tokenizer of ours writes it
FLD = "xxfld"  # field n of several begins: xxfld 1
REP = "xxrep"  # a character n times: xxrep 4 !
WREP = "xxwrep"  # a word n times: xxwrep 3 very
UP = "xxup"  # the next word is in CAPITALS
MAJ = "xxmaj"  # the next word has a Capital

SPECIAL = [UNK, PAD, BOS, EOS, FLD, REP, WREP, UP, MAJ]
PAD_ID = SPECIAL.index(PAD)  # 1
