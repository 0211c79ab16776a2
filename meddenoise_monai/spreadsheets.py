"""Text that a spreadsheet shows as it is."""

from __future__ import annotations

__all__ = ["as_cell"]

_STARTS = ("=", "+", "-", "@", "\t", "\r")


def as_cell(text: str) -> str:
    """Text for a cell of a CSV file, with an apostrophe before it where a spreadsheet would run it as a formula.

    OWASP's advice on "CSV injection" (https://owasp.org/www-community/attacks/CSV_Injection): what begins with ``=``,
    ``+``, ``-``, ``@``, a tab or a carriage return. Quotation marks and commas are left to the writer of the file.

    Parameters
    ----------
    text
        Such as a file's name. A number in it, such as ``-1.5``, stays one.
    """
    return f"'{text}" if text.startswith(_STARTS) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip() == text and "_" not in text
