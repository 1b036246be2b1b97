"""What a notebook gets."""

from warmstart.vision import __all__ as of_vision
from warmstart.vision import gan


def test_star_import_brings_vision_and_what_is_listed():
    namespace: dict = {}
    exec("from warmstart.vision.gan import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(gan.__all__) and set(of_vision) < set(gan.__all__)
    assert namespace["GANLearner"].__mro__[1] is namespace["Learner"]
