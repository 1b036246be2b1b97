import json
from pathlib import Path

import pytest
from warmstart.vision import get_annotations, get_voc_annotations
from warmstart.vision.annotations import Annotation

DATA = Path(__file__).parents[3] / "shared/data"

COCO = {
    "categories": [{"id": 7, "name": "ant"}, {"id": 3, "name": "bee"}],
    "images": [{"id": 20, "file_name": "b.jpg"}, {"id": 10, "file_name": "a.jpg"}, {"id": 30, "file_name": "c.jpg"}],
    "annotations": [
        {"image_id": 10, "bbox": [1, 2, 3, 4], "category_id": 7},
        {"image_id": 20, "bbox": [5.5, 6, 1, 1], "category_id": 3},
        {"image_id": 10, "bbox": [0, 0, 9, 9], "category_id": 3},
        {"image_id": 10, "bbox": [0, 0, 99, 99], "category_id": 3, "iscrowd": 1},
        {"image_id": 20, "bbox": [4, 4, 0, 9], "category_id": 3},
    ],
}

VOC = """<annotation><filename>{name}</filename><size><width>40</width></size>
<object><name>ant</name><bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>
<object><name>bee</name><bndbox><xmax>9</xmax><ymax>8</ymax><xmin>7</xmin><ymin>6</ymin></bndbox></object></annotation>"""


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_boxes_of_coco_become_corners_by_image(tmp_path):
    names, annotations = get_annotations(written(tmp_path / "coco.json", COCO))
    assert names == ["b.jpg", "a.jpg", "c.jpg"]
    assert annotations == [
        Annotation([[5.5, 6, 6.5, 7]], ["bee"]),
        Annotation([[1, 2, 4, 6], [0, 0, 9, 9]], ["ant", "bee"]),
        Annotation([], []),
    ]
    assert get_annotations(tmp_path / "coco.json", prefix="train/")[0][0] == "train/b.jpg"


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {},
        {**COCO, "categories": []},
        {**COCO, "images": []},
        {**COCO, "annotations": [{"image_id": 10, "bbox": [1, 2, 3], "category_id": 7}]},
        {**COCO, "annotations": [{"image_id": 10, "bbox": [1, 2, 3, "4"], "category_id": 7}]},
        {**COCO, "annotations": None},
    ],
)
def test_a_json_of_another_form_is_named(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"other\.json is no JSON of COCO's form"):
        get_annotations(written(tmp_path / "other.json", wrong))


def test_what_is_no_json_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"text\.json is no JSON"):
        get_annotations(written(tmp_path / "text.json", "boxes"))


def test_voc_gives_an_annotation_for_each_file(tmp_path):
    for name in ("b", "a"):
        written(tmp_path / f"{name}.xml", VOC.format(name=f"{name}.jpg"))
    written(tmp_path / "c.xml", "<annotation><filename> c.jpg </filename></annotation>")
    names, annotations = get_voc_annotations(tmp_path)
    assert names == ["a.jpg", "b.jpg", "c.jpg"]
    assert annotations[0] == annotations[1] == Annotation([[1, 2.5, 30, 40], [7, 6, 9, 8]], ["ant", "bee"])
    assert annotations[2] == Annotation([], [])


@pytest.mark.parametrize(
    "content, reason",
    [
        ("<annotation>", "no element found"),
        ("<annotation></annotation>", "<annotation> has no <filename>"),
        (VOC.replace("<xmax>30</xmax>", "").format(name="a.jpg"), "<object> has no <bndbox/xmax>"),
        (VOC.replace("<xmax>30</xmax>", "<xmax>wide</xmax>").format(name="a.jpg"), "could not convert"),
    ],
)
def test_a_damaged_voc_file_is_named_with_the_reason(tmp_path, content, reason):
    written(tmp_path / "bad.xml", content)
    with pytest.raises(ValueError, match=rf"bad\.xml is no annotation of Pascal VOC's form: .*{reason}"):
        get_voc_annotations(tmp_path)


def test_a_folder_without_annotations_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"There is no \.xml file in .*: give the folder of the annotations"):
        get_voc_annotations(tmp_path)
    with pytest.raises(FileNotFoundError):
        get_voc_annotations(tmp_path / "none")


@pytest.mark.skipif(not DATA.exists(), reason="needs the data")
def test_real_annotations_are_read_whole():
    names, annotations = get_annotations(DATA / "coco-tiny/train.json")
    assert len(names) == 200 and sum(len(annotation.boxes) for annotation in annotations) == 688
    names, annotations = get_voc_annotations(DATA / "bccd/annotations")
    assert len(names) == 200 and names[0] == "BloodImage_00000.jpg"
    assert annotations[0].boxes[0] == [260, 177, 491, 376] and annotations[0].labels[0] == "WBC"
