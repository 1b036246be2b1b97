"""warmstart: high-level deep learning on PyTorch. Start with `from warmstart.vision import *`."""

__all__ = ["__version__"]
__version__ = "0.1.0"
