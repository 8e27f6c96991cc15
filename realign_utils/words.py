"""Words that go with numbers."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: ``1 model``, ``2 models``, ``1,000 images``.

    Parameters
    ----------
    number : int
    noun : str
        In the singular.
    plural : str, optional
        By default the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
