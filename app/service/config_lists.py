"""Comma-separated lists: the one reader of them, for the environment, the runtime configuration and API clients."""

from __future__ import annotations


def listed(text: str) -> tuple[str, ...]:
    """The words of a list, without blanks around them. Empty: there is none, which for most lists means no limit.

    Raises ValueError for blanks and commas alone: `$OFFICE,$HOME` with both unset is `,`, and nobody meant by it that
    all may come in.
    """
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if text and not words:
        raise ValueError(f"expected words with commas between them, or nothing at all, was {text[:20]!r}")
    return words
