"""DICOM files as a viewer shows them; the files are written here, by pydicom."""

import sys
from functools import partial

import numpy as np
import pytest
import torch
from warmstart.data import CategoryBlock, DataBlock, EndSplitter, get_files
from warmstart.vision import ImageBlock, open_dicom, open_image, verify_images
from warmstart.vision.dicom import is_dicom

pydicom = pytest.importorskip("pydicom")

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)


def dataset(pixels: np.ndarray, photometric: str = "MONOCHROME2", bits: int = 12, **fields):
    """A secondary capture with such pixels; `fields` by DICOM's keywords."""
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = pydicom.uid.generate_uid()
    ds.PhotometricInterpretation, ds.SamplesPerPixel = photometric, 3 if photometric == "RGB" else 1
    ds.Rows, ds.Columns = pixels.shape[-2:] if photometric != "RGB" else pixels.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * pixels.itemsize, bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PlanarConfiguration = 0
    ds.PixelData = pixels.tobytes()
    for name, value in fields.items():
        setattr(ds, name, value)
    return ds


@pytest.fixture
def write(tmp_path):
    def writer(pixels, *args, name="image.dcm", **fields):
        dataset(pixels, *args, **fields).save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return writer


def grey(source, **options) -> np.ndarray:
    return np.asarray(open_dicom(source, **options))


def test_without_a_window_the_whole_range_is_shown(write):
    file = write(RAMP)
    assert np.array_equal(grey(file), np.round(RAMP / RAMP.max() * 255).astype(np.uint8))
    eight = np.arange(60, 124, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(grey(write(eight, bits=8)), eight)  # which a viewer leaves as they are


def test_values_are_rescaled_then_seen_through_the_files_first_window(write):
    file = write(RAMP, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=[40, 300], WindowWidth=[400, 1500])
    units = RAMP * 2.0 - 1024
    expected = np.interp(units, [40 - 0.5 - 399 / 2, 40 - 0.5 + 399 / 2], [0, 255])  # PS3.3, C.11.2.1.2.1
    assert np.array_equal(grey(file), np.round(expected).astype(np.uint8))
    other = np.interp(units, [300 - 0.5 - 1499 / 2, 300 - 0.5 + 1499 / 2], [0, 255])
    assert np.array_equal(grey(file, window=(300, 1500)), np.round(other).astype(np.uint8))


def test_windows_are_pydicoms(write):
    from pydicom.pixels import apply_windowing

    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        file = write(RAMP, WindowCenter=1500, WindowWidth=900, VOILUTFunction=function)
        expected = apply_windowing(RAMP, pydicom.dcmread(file)) / 4095 * 255
        assert np.abs(grey(file) - expected).max() <= 0.51


def test_signed_values_and_large_is_dark(write):
    signed = (RAMP.astype(np.int16) - 2000).astype(np.int16)
    plain = grey(write(signed, bits=16))
    assert plain[0, 0] == 0 and plain[-1, -1] == 255
    assert np.array_equal(grey(write(signed, "MONOCHROME1", bits=16)), 255 - plain)


def test_colours_stay_and_sixteen_bits_become_eight(write):
    colours = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(open_dicom(write(colours, "RGB", bits=8))), colours)
    assert np.array_equal(np.asarray(open_dicom(write(colours.astype(np.uint16) * 257, "RGB", bits=16))), colours)


def test_of_several_frames_one_is_chosen(write):
    frames = np.stack([RAMP, RAMP.T])
    file = write(frames, NumberOfFrames=2)
    assert np.array_equal(grey(file, frame=1), grey(file, frame=0).T)
    with pytest.raises(ValueError, match=r"2 frames: choose one .* frame=0"):
        open_image(file)


def test_images_are_opened_by_name_or_by_what_the_bytes_say(write):
    file = write(RAMP, name="IMAGE.DCM")
    image = open_image(file, "L")
    assert image.shape == (1, 16, 16) and image.dtype == torch.uint8
    assert torch.equal(open_image(str(file)), open_image(file, "L").expand(3, -1, -1))
    assert torch.equal(open_image(file.read_bytes(), "L"), image)
    assert not is_dicom("a.png") and not is_dicom(b"\x89PNG") and not is_dicom(np.zeros(3))


def test_what_cannot_be_read_is_explained(write, tmp_path):
    text = tmp_path / "notes.dcm"
    text.write_text("no image")
    with pytest.raises(ValueError, match="not a DICOM file"):
        open_image(text)
    ds = dataset(RAMP)
    del ds.PixelData
    ds.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    with pytest.raises(ValueError, match="pixels of this DICOM file cannot be read"):
        open_image(tmp_path / "report.dcm")
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "absent.dcm")
    good = write(RAMP)
    assert verify_images([text, good]) == [text]


def test_without_pydicom_the_extra_is_named(write, monkeypatch):
    file = write(RAMP)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r"warmstart\[dicom\]"):
        open_image(file)


def test_a_datablock_reads_them(write, tmp_path):
    for i in range(6):
        write(RAMP if i % 2 else RAMP.T.copy(), name=f"{'ab'[i % 2]}{i}.dcm")
    block = DataBlock((ImageBlock("L"), CategoryBlock), get_items=partial(get_files, extensions=[".dcm"]),
                      get_y=lambda file: file.name[0], splitter=EndSplitter(0.34))  # fmt: skip
    xb, yb = block.databunch(tmp_path, bs=2, num_workers=0, device="cpu").one_batch()
    assert xb.shape == (2, 1, 16, 16) and xb.max() == 1 and yb.dtype == torch.int64


def test_files_of_many_kinds_are_read():
    """Those that come with pydicom: compressed, big-endian, in other colours."""
    from pydicom.data import get_testdata_file

    def image(name):
        return open_image(get_testdata_file(name, download=False))

    for name in ("RLE", "bigendian", "implicit", "jp2klossless"):
        assert torch.equal(image(f"MR_small_{name}.dcm"), image("MR_small.dcm"))
    bars = [image(f"SC_{name}.dcm")[:, 5::10, 50] for name in ("rgb_rle_16bit", "rgb_rle", "ybr_full_422_uncompressed")]
    assert bars[0].T.tolist()[:3] == [[255, 0, 0], [255, 128, 128], [0, 255, 0]]
    assert torch.equal(bars[0], bars[1]) and (bars[0].int() - bars[2].int()).abs().max() <= 5
    assert image("CT_small.dcm").min() == 0 and image("CT_small.dcm").max() == 255
