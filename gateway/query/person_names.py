"""Matching of person names: the form that is stored, and the GLOB patterns of a name in a query.

Case, accents, the width of letters, padding and trailing carets do not count. A query of one component group matches
any group of a stored name; a query of several matches the groups in the same places, and its empty groups match
anything.

Not here: any other kind of value (`gateway.query.matching`).
"""

import re
import unicodedata
from itertools import product

_ACCENTS = re.compile("[\u0300-\u036f]")
_BARRED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "\u0131": "i", "\u2019": "'"})
"""Letters that Unicode does not decompose into base and accent, the dotless i and the curly apostrophe."""

_WIDTHS = {
    code: usual
    for code in range(0xFF10, 0xFFA0)
    if (usual := unicodedata.normalize("NFKC", chr(code))) and (usual.isalnum() or code >= 0xFF66)
}
"""Letters and digits of full width, katakana of half width (all that ISO_IR 13 has), in their usual forms."""


def fold(name: str) -> str:
    """Reduce a person name to the form that is compared: its component groups, lower case, no accents, no padding."""
    # PS3.4 C.2.2.2.1 leaves case and accents of names to the SCP, and modalities differ in all of it.
    return "=".join(_fold_group(group) for group in name.split("=")).rstrip("=")


def patterns(name: str) -> tuple[str, ...]:
    """The forms of a stored name that a name matches, as in GLOB; `*` and `?` are wildcards in it."""
    groups = fold(name).split("=")
    if groups == [""]:
        return ("",)  # accents alone: no name is like it
    if len(groups) == 1:
        # Any group of the stored name (PS3.5 6.2.1), because an operator at a keyboard does not think of groups. In
        # ASCII only the first, which an index finds: ideographic and phonetic groups are not written in ASCII.
        places = ("{}",) if groups[0].isascii() else ("{}", "*={}")
    else:
        places = ("=".join("{}" if group else "*" for group in groups),)  # a `*` may run on into the next group
    spelled = product(*(_group_patterns(glob(group)) for group in groups if group))
    forms = [place.format(*patterns) for patterns in spelled for place in places]
    return tuple(pattern for form in forms for pattern in ([form] if form.endswith("*") else [form, f"{form}=*"]))


def _group_patterns(pattern: str) -> tuple[str, ...]:
    # `SMITH^*` also finds a SMITH without a given name, because a component may be empty and `fold` drops its caret.
    components = pattern
    while components.endswith("^*"):
        components = components[:-2]
    if components == pattern:
        return (pattern,)
    return (components,) if components.endswith("*") else (components, f"{components}^*")


def glob(text: str) -> str:
    """A text with DICOM's wildcards as a GLOB pattern, in which a bracket is one as well."""
    # A run of stars means the same as one, and would hide the trailing `^*` from `_group_patterns`.
    return re.sub(r"\*+", "*", text).replace("[", "[[]")


def _fold_group(group: str) -> str:
    return "^".join(_fold_component(component) for component in group.split("^")).rstrip("^")


def _fold_component(component: str) -> str:
    """Casefold and strip accents, keeping marks of other scripts (a Japanese voiced sound is another letter)."""
    # Decomposed before and after the case folding: canonical caseless matching (Unicode 3.13, D145).
    parted = unicodedata.normalize("NFD", unicodedata.normalize("NFD", component.translate(_WIDTHS)).casefold())
    return unicodedata.normalize("NFC", _ACCENTS.sub("", parted)).translate(_BARRED).strip()
