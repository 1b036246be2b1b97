"""All tests run on one thread: the networks are small, and more threads only wait for each other on shared cores."""

import torch

torch.set_num_threads(1)
