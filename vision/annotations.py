"""Boxes and labels out of the files in which they are published: COCO's JSON and Pascal VOC's XML.

names, annotations = get_annotations(path / "train.json")
of = dict(zip(names, annotations))                      # by the image's file name
DataBlock((ImageBlock, BBoxBlock, BBoxLabelBlock), get_items=get_image_files,
          get_y=[lambda file: of[file.name].boxes, lambda file: of[file.name].labels])
"""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..data import get_files

__all__ = ["Annotation", "get_annotations", "get_voc_annotations"]

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Annotation(NamedTuple):
    """What is known of an image: boxes x1, y1, x2, y2 in pixels, and a label for each."""

    boxes: list[list[float]]
    labels: list[str]


def get_annotations(fname: str | Path, prefix: str | None = None) -> tuple[list[str], list[Annotation]]:
    """The file names in a JSON of COCO's form, after `prefix` if given, and the annotation of each.

    Images without boxes have empty lists. Boxes of whole crowds (`iscrowd`) and those without an area are left out.
    Raises ValueError for a file of another form.
    """
    try:
        content = json.loads(Path(fname).read_text(encoding="utf-8"))
        labels = {category["id"]: category["name"] for category in content["categories"]}
        names = {image["id"]: f"{prefix or ''}{image['file_name']}" for image in content["images"]}
        found = {number: Annotation([], []) for number in names}
        for box in content["annotations"]:
            x, y, width, height = box["bbox"]
            if width > 0 and height > 0 and not box.get("iscrowd"):
                found[box["image_id"]].boxes.append([x, y, x + width, y + height])
                found[box["image_id"]].labels.append(labels[box["category_id"]])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{fname} is no JSON of COCO's form, with lists of 'images', 'annotations' and 'categories' that refer to "
            f"each other by their ids: {type(error).__name__} {error}"
        ) from error
    return list(names.values()), list(found.values())


def get_voc_annotations(path: str | Path) -> tuple[list[str], list[Annotation]]:
    """The file names of images in a folder of Pascal VOC's XML files, sorted by those, and the annotation of each.

    Numbers are taken as they are; VOC itself counts pixels from 1, other tools from 0. Raises ValueError for a folder
    without such files, and for a file of another form, naming it.
    """
    files = sorted(get_files(path, extensions=[".xml"]))
    if not files:
        raise ValueError(f"There is no .xml file in {path}: give the folder of the annotations, not of the images.")
    return _split(map(_read_voc, files))


def _split(pairs: Iterable[tuple[str, Annotation]]) -> tuple[list[str], list[Annotation]]:
    names, annotations = zip(*pairs, strict=True)
    return list(names), list(annotations)


def _read_voc(file: Path) -> tuple[str, Annotation]:
    try:
        root = ElementTree.parse(file).getroot()
        objects = root.findall("object")
        boxes = [[float(_text(thing, f"bndbox/{corner}")) for corner in CORNERS] for thing in objects]
        return _text(root, "filename"), Annotation(boxes, [_text(thing, "name") for thing in objects])
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{file} is no annotation of Pascal VOC's form: {error}") from error


def _text(element: ElementTree.Element, path: str) -> str:
    """What stands at `path` below the element. Raises ValueError where nothing does."""
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{element.tag}> has no <{path}>")
    return text.strip()
