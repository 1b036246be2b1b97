"""Vision: image data, augmentation, pretrained models and their recipes: `from warmstart.vision import *`."""

from torchvision.models import resnet18, resnet34, resnet50

from .. import notebook
from ..notebook import *  # noqa: F403
from . import models
from .annotations import get_annotations, get_voc_annotations
from .augment import aug_transforms
from .body import create_body, model_sizes, num_features_model
from .boxes import BBoxBlock, BBoxLabelBlock
from .cleaner import ImageCleaner
from .cropping import CropPad, FlipItem, RatioResize
from .data import ImageDataBunch
from .detection import detection_learner
from .detection_metrics import MeanAveragePrecision
from .dicom import open_dicom
from .diffusion import diffusion_learner
from .duplicates import find_duplicates
from .erasing import RandomErasing
from .feature_loss import FeatureLoss, StyleLoss, gram_matrix
from .gradcam import GradCAM
from .head import create_head
from .image import ImageBlock, open_image, show_image, show_images, verify_images
from .learner import vision_learner
from .masks import MaskBlock, open_mask
from .models import efficientnet_lite0, xresnet18, xresnet34, xresnet50, xresnet101, xresnet152
from .points import PointBlock
from .saliency import Saliency
from .segmentation_interpretation import SegmentationInterpretation
from .transforms import Normalize, RandomResizedCrop, Resize, imagenet_stats
from .unet import DynamicUnet
from .unet_learner import unet_learner
from .vae_learner import vae_learner

__all__ = [
    *notebook.__all__,
    "BBoxBlock",
    "BBoxLabelBlock",
    "CropPad",
    "DynamicUnet",
    "FeatureLoss",
    "FlipItem",
    "GradCAM",
    "ImageBlock",
    "ImageCleaner",
    "ImageDataBunch",
    "MaskBlock",
    "MeanAveragePrecision",
    "Normalize",
    "PointBlock",
    "RandomErasing",
    "RandomResizedCrop",
    "RatioResize",
    "Resize",
    "Saliency",
    "SegmentationInterpretation",
    "StyleLoss",
    "aug_transforms",
    "create_body",
    "create_head",
    "detection_learner",
    "diffusion_learner",
    "efficientnet_lite0",
    "find_duplicates",
    "get_annotations",
    "get_voc_annotations",
    "gram_matrix",
    "imagenet_stats",
    "model_sizes",
    "models",
    "num_features_model",
    "open_dicom",
    "open_image",
    "open_mask",
    "resnet18",
    "resnet34",
    "resnet50",
    "show_image",
    "show_images",
    "unet_learner",
    "vae_learner",
    "verify_images",
    "vision_learner",
    "xresnet18",
    "xresnet34",
    "xresnet50",
    "xresnet101",
    "xresnet152",
]
