"""Text that a callback has to say."""

import textwrap

__all__ = ["Report"]


class Report(str):
    """A text that shows itself with its line breaks in a notebook."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    @classmethod
    def of(cls, *paragraphs: str) -> "Report":
        """The paragraphs, wrapped at 80 columns, but for those that have line breaks already."""
        return cls("\n".join(p if "\n" in p else textwrap.fill(p, 80) for p in paragraphs))
