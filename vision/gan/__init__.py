"""GANs: `from warmstart.vision.gan import *` gives all of vision, and generators, critics and what trains them."""

from ... import vision
from .. import *  # noqa: F403
from .adaptive_loss import AdaptiveLoss, critic_accuracy
from .cycle import CycleGAN, CycleGANLearner
from .cycle_nets import patch_critic, resnet_generator
from .fid import FID, KID, frechet_distance
from .learner import GANLearner
from .losses import ByClassifier, Hinge, LeastSquares, NonSaturating, Wasserstein
from .nets import basic_critic, basic_generator, gan_critic, with_spectral_norm
from .noise import NoiseBlock
from .penalties import R1, GradientPenalty
from .residual import residual_critic, residual_generator
from .samples import GANSamples
from .switcher import AdaptiveGANSwitcher, FixedGANSwitcher
from .system import GAN
from .unpaired import ImageBuffer, RandomImage

__all__ = [
    *vision.__all__,
    "FID",
    "GAN",
    "KID",
    "R1",
    "AdaptiveGANSwitcher",
    "AdaptiveLoss",
    "ByClassifier",
    "CycleGAN",
    "CycleGANLearner",
    "FixedGANSwitcher",
    "GANLearner",
    "GANSamples",
    "GradientPenalty",
    "Hinge",
    "ImageBuffer",
    "LeastSquares",
    "NoiseBlock",
    "NonSaturating",
    "RandomImage",
    "Wasserstein",
    "basic_critic",
    "basic_generator",
    "critic_accuracy",
    "frechet_distance",
    "gan_critic",
    "patch_critic",
    "residual_critic",
    "residual_generator",
    "resnet_generator",
    "with_spectral_norm",
]
