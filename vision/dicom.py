"""Medical images: DICOM files as pictures of 8 bits, as a viewer shows them.

    open_image("scan.dcm", "L")                                        # any ImageBlock reads files that end in .dcm
    DataBlock((ImageBlock("L"), CategoryBlock), get_items=partial(get_files, extensions=[".dcm"]), …)
    open_dicom("ct.dcm", window=(40, 400))                             # soft tissue, in Hounsfield units

Needs pydicom: pip install "warmstart[dicom]".
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["is_dicom", "open_dicom"]

SUFFIXES = (".dcm", ".dicom")


def is_dicom(source: Any) -> bool:
    """Whether `source` is a path that ends in .dcm or .dicom, or the bytes of such a file."""
    if isinstance(source, bytes):
        return source[128:132] == b"DICM"
    return isinstance(source, (str, Path)) and Path(source).suffix.lower() in SUFFIXES


def open_dicom(source: str | Path | bytes, window: tuple[float, float] | None = None, frame: int | None = None
               ) -> Image.Image:  # fmt: skip
    """The image of a DICOM file, grey ('L') or in colour ('RGB').

    Grey values are rescaled to their unit (Hounsfield in CT), then `window` – centre and width, by default the first
    one that the file has – becomes black to white by the function that the file names (DICOM PS3.3, C.11.2). Without
    any window the whole range does. MONOCHROME1, where large is dark, is inverted. `frame` chooses among several.

    Raises ImportError without pydicom, FileNotFoundError, and ValueError for a file that has no image that can be read.
    """
    dataset = _read(source)
    pixels = _pixels(dataset, frame)
    if not dataset.PhotometricInterpretation.startswith("MONOCHROME"):
        return Image.fromarray(_as_bytes(pixels / (2**dataset.BitsStored - 1)))
    grey = _windowed(_in_units(pixels, dataset), dataset, window)
    return Image.fromarray(_as_bytes(1 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey))


def _read(source: str | Path | bytes) -> Any:
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise ImportError('DICOM files need pydicom: pip install "warmstart[dicom]".') from error
    try:
        return pydicom.dcmread(io.BytesIO(source) if isinstance(source, bytes) else source)
    except InvalidDicomError as error:
        raise ValueError(f"this is not a DICOM file: {error}") from error


def _pixels(dataset: Any, frame: int | None) -> np.ndarray:
    """Stored values `(h, w)`, or `(h, w, 3)` of colours as RGB."""
    from pydicom.pixels import apply_color_lut, pixel_array

    n_frames = int(dataset.get("NumberOfFrames") or 1)
    if frame is None and n_frames > 1:
        raise ValueError(f"this DICOM file has {n_frames} frames: choose one in get_x, open_dicom(path, frame=0).")
    try:
        pixels = pixel_array(dataset, index=frame or 0)
    except Exception as error:  # each of the decoders has its own errors
        raise ValueError(f"the pixels of this DICOM file cannot be read: {error}") from error
    return apply_color_lut(pixels, dataset) if dataset.PhotometricInterpretation == "PALETTE COLOR" else pixels


def _in_units(pixels: np.ndarray, dataset: Any) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut

    return apply_modality_lut(pixels, dataset).astype(np.float64)


def _windowed(values: np.ndarray, dataset: Any, window: tuple[float, float] | None) -> np.ndarray:
    """Values from 0, black, to 1; what is outside of the window is cut off later."""
    centre, width = window or (_first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth")))
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if centre is None or width is None:
        low, high = _range(values, dataset)
        return (values - low) / ((high - low) or 1)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    return (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5


def _first(number: Any) -> float | None:
    """A number, or the first of several."""
    return None if number is None else float(number[0] if hasattr(number, "__len__") else number)


def _range(values: np.ndarray, dataset: Any) -> tuple[float, float]:
    """What is black and what is white where no window says: of 8 bits all, of more those that occur."""
    is_plain = dataset.BitsStored <= 8 and not dataset.PixelRepresentation and "RescaleSlope" not in dataset
    return (0.0, 2.0**dataset.BitsStored - 1) if is_plain else (float(values.min()), float(values.max()))


def _as_bytes(shares: np.ndarray) -> np.ndarray:
    return (shares.clip(0, 1) * 255).round().astype(np.uint8)
