"""Vision: image data, augmentation, pretrained models and their recipes: `from warmstart.vision import *`."""

from torchvision.models import resnet18, resnet34, resnet50

from .. import notebook
from ..notebook import *  # noqa: F403
from . import models
from .augment import aug_transforms
from .body import create_body, model_sizes, num_features_model
from .data import ImageDataBunch
from .erasing import RandomErasing
from .head import create_head
from .image import ImageBlock, open_image, show_image, show_images, verify_images
from .learner import vision_learner
from .models import efficientnet_lite0
from .transforms import Normalize, RandomResizedCrop, Resize, imagenet_stats

__all__ = [
    *notebook.__all__,
    "ImageBlock",
    "ImageDataBunch",
    "Normalize",
    "RandomErasing",
    "RandomResizedCrop",
    "Resize",
    "aug_transforms",
    "create_body",
    "create_head",
    "efficientnet_lite0",
    "imagenet_stats",
    "model_sizes",
    "models",
    "num_features_model",
    "open_image",
    "resnet18",
    "resnet34",
    "resnet50",
    "show_image",
    "show_images",
    "verify_images",
    "vision_learner",
]
