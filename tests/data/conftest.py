import torch
from hypothesis import settings

torch.set_num_threads(1)  # the tensors are small: more threads only wait for each other where cores are shared
settings.register_profile("any machine", deadline=None)  # a busy one may take its time for an example
settings.load_profile("any machine")
