"""Targets and predictions drawn on the picture that axes already have."""

from collections.abc import Sequence
from typing import Any

__all__ = ["PRED", "TARGET", "legend"]

TARGET, PRED = "#39ff14", "#ff2d55"  # green and red that are seen on most photos


def legend(ax: Any, handles: Sequence[Any] | None = None) -> None:
    """What `handles`, or else what was drawn with a label, stand for: below the picture."""
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    ax.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, fontsize=6, frameon=False,
        borderpad=0.2, labelspacing=0.3, columnspacing=0.8, handlelength=1, handletextpad=0.4,
    )  # fmt: skip
