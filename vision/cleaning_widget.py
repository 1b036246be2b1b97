"""Thumbnails in a notebook, each with a menu. Needs ipywidgets, which is asked for where it is used."""

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

__all__ = ["show_choices", "thumbnail"]

WIDTH = 180  # pixels


def show_choices(
    files: Sequence[str | Path],
    captions: Sequence[str],
    names: Sequence[str],
    chosen: Sequence[int],
    choose: Callable[[int, int], None],
) -> None:
    """Display images with captions and a menu of `names` for each, which calls `choose(which image, which name)`.

    `chosen` is what each menu begins with. Raises ImportError where ipywidgets is not installed.
    """
    try:
        import ipywidgets  # pyright: ignore[reportMissingImports]  # which only notebooks have
    except ImportError as error:
        raise ImportError(
            "Menus in a notebook need ipywidgets: pip install ipywidgets, and restart the notebook. Without it "
            "cleaner.to_csv(…) writes the same as a table to edit."
        ) from error
    from IPython.display import display

    cells = []
    for which, (file, caption, first) in enumerate(zip(files, captions, chosen, strict=True)):
        menu = ipywidgets.Dropdown(options=[(name, i) for i, name in enumerate(names)], value=first)
        menu.layout.width = f"{WIDTH}px"
        menu.observe(partial(_tell, choose, which), names="value")
        image = ipywidgets.Image(value=thumbnail(file), format="png")
        cells.append(ipywidgets.VBox([image, ipywidgets.Label(value=caption), menu]))
    print("prediction / actual / loss / probability")
    display(ipywidgets.HBox(cells, layout=ipywidgets.Layout(flex_flow="row wrap")))


def _tell(choose: Callable[[int, int], None], which: int, change: Any) -> None:
    choose(which, change["new"])


def thumbnail(file: str | Path) -> bytes:
    """A PNG of the image, upright and at most 180 pixels wide and high."""
    with Image.open(file) as image:
        image.draft("RGB", (2 * WIDTH, 2 * WIDTH))
        small = ImageOps.exif_transpose(image).convert("RGB")
    small.thumbnail((WIDTH, WIDTH))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()
