"""Citations: the papers that methods come from, read from the `references.bib` that ships with the package."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

from ssmtheory.errors import InputError, nearest
from ssmtheory.resources import resource

__all__ = ["Citation", "cite", "keys"]


@dataclass(frozen=True)
class Citation:
    """One entry of `references.bib`.

    Attributes:
        key: BibTeX key.
        kind: BibTeX entry type, lower case.
        fields: field name (lower case) -> value, braces and line breaks removed.
        bibtex: the entry as written.
    """

    key: str
    kind: str
    fields: dict[str, str] = field(repr=False)
    bibtex: str = field(repr=False)

    @property
    def short(self) -> str:
        """Authors' family names and year: `Gu and Dao (2024)`.

        >>> cite("mamba").short
        'Gu and Dao (2024)'
        """
        family = [name.split(",")[0].strip() for name in re.split(r"\s+and\s+", self.fields["author"])]
        who = family[0] if len(family) == 1 else " and ".join(family) if len(family) == 2 else f"{family[0]} et al."
        return f"{who} ({self.fields['year']})"

    def __str__(self) -> str:
        where = self.fields.get("eprint")
        tail = f" arXiv:{where}." if where else ""
        return f"{self.short}. {self.fields['title']}.{tail}"


def _entries(text: str) -> dict[str, Citation]:
    found: dict[str, Citation] = {}
    for match in re.finditer(r"^@(\w+)\{([^,\s]+),\n(.*?)^\}", text, flags=re.MULTILINE | re.DOTALL):
        kind, key, body = match.groups()
        values = {
            name.lower(): re.sub(r"\s+", " ", re.sub(r"[{}]", "", value)).strip()
            for name, value in re.findall(r"^\s*(\w+)\s*=\s*\{(.*?)\},?\s*$", body, flags=re.MULTILINE | re.DOTALL)
        }
        found[key] = Citation(key, kind.lower(), values, match.group(0))
    return found


@cache
def _all() -> dict[str, Citation]:
    return _entries(resource("references", "references.bib").read_text(encoding="utf-8"))


def keys() -> list[str]:
    """Every key that `cite` knows, in the order of the file."""
    return list(_all())


def cite(key: str) -> Citation:
    """The citation of one key.

    Args:
        key: a key of `references.bib`.

    Raises:
        InputError: no such key; the message names the closest.

    >>> print(cite("mamba"))
    Gu and Dao (2024). Mamba: Linear-Time Sequence Modeling with Selective State Spaces. arXiv:2312.00752.
    """
    table = _all()
    if key not in table:
        raise InputError(f"no reference {key!r} in references.bib.{nearest(key, table)}")
    return table[key]
