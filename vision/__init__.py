"""Vision: image data, augmentation, pretrained models and their recipes: `from warmstart.vision import *`."""

from torchvision.models import resnet18, resnet34, resnet50

from .. import notebook
from ..notebook import *  # noqa: F403
from . import models
from .annotations import get_annotations, get_voc_annotations
from .augment import aug_transforms
from .body import create_body, model_sizes, num_features_model
from .boxes import BBoxBlock, BBoxLabelBlock
from .cropping import CropPad, FlipItem, RatioResize
from .data import ImageDataBunch
from .erasing import RandomErasing
from .head import create_head
from .image import ImageBlock, open_image, show_image, show_images, verify_images
from .learner import vision_learner
from .masks import MaskBlock, open_mask
from .models import efficientnet_lite0
from .points import PointBlock
from .transforms import Normalize, RandomResizedCrop, Resize, imagenet_stats

__all__ = [
    *notebook.__all__,
    "BBoxBlock",
    "BBoxLabelBlock",
    "CropPad",
    "FlipItem",
    "ImageBlock",
    "ImageDataBunch",
    "MaskBlock",
    "Normalize",
    "PointBlock",
    "RandomErasing",
    "RandomResizedCrop",
    "RatioResize",
    "Resize",
    "aug_transforms",
    "create_body",
    "create_head",
    "efficientnet_lite0",
    "get_annotations",
    "get_voc_annotations",
    "imagenet_stats",
    "model_sizes",
    "models",
    "num_features_model",
    "open_image",
    "open_mask",
    "resnet18",
    "resnet34",
    "resnet50",
    "show_image",
    "show_images",
    "verify_images",
    "vision_learner",
]
