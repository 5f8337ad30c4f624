"""Person names as they are compared: the form that is stored, and the patterns of a name that is asked for.

* Without regard to case, accents and the width of letters; components without their padding, trailing carets ignored.
  PS3.4 C.2.2.2.1 leaves that to us, and modalities differ in all of it.
* A stored name is all its component groups in a row (PS3.5 6.2.1). A query of one group is compared with each of them,
  for nobody at a keyboard thinks of groups; but in ASCII, which the ideographic and phonetic groups are not written in,
  with the alphabetic group alone, which an index finds. A query of several groups is compared with those in the same
  places; groups it leaves empty match anything. A `*` may run on into the next group.
* `SMITH^*` also finds a SMITH without a given name, as a component may be empty.

Not here: any other kind of value (`gateway.query.matching`).
"""

import re
import unicodedata
from itertools import product

_ACCENTS = re.compile("[\u0300-\u036f]")
_BARRED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "\u0131": "i", "\u2019": "'"})
"""Letters that Unicode does not take apart into base and accent, the dotless i and the curly apostrophe."""

_WIDTHS = {
    code: usual
    for code in range(0xFF10, 0xFFA0)
    if (usual := unicodedata.normalize("NFKC", chr(code))) and (usual.isalnum() or code >= 0xFF66)
}
"""Letters and digits of full width, katakana of half width (all that ISO_IR 13 has), in their usual forms."""


def fold(name: str) -> str:
    """Reduce a person name to what is compared: its component groups, lower case, no accents, no padding."""
    return "=".join(_fold_group(group) for group in name.split("=")).rstrip("=")


def patterns(name: str) -> tuple[str, ...]:
    """The forms of a stored name that a name matches, as in GLOB; `*` and `?` are wildcards in it."""
    groups = fold(name).split("=")
    if groups == [""]:
        return ("",)  # accents alone: no name is like it
    if len(groups) == 1:
        places = ("{}",) if groups[0].isascii() else ("{}", "*={}")
    else:
        places = ("=".join("{}" if group else "*" for group in groups),)
    spelled = product(*(_group_patterns(glob(group)) for group in groups if group))
    forms = [place.format(*patterns) for patterns in spelled for place in places]
    return tuple(pattern for form in forms for pattern in ([form] if form.endswith("*") else [form, f"{form}=*"]))


def _group_patterns(pattern: str) -> tuple[str, ...]:
    components = pattern
    while components.endswith("^*"):
        components = components[:-2]
    if components == pattern:
        return (pattern,)
    return (components,) if components.endswith("*") else (components, f"{components}^*")


def glob(text: str) -> str:
    """A text with DICOM's wildcards as a GLOB pattern, in which a bracket is one as well."""
    return re.sub(r"\*+", "*", text).replace("[", "[[]")


def _fold_group(group: str) -> str:
    return "^".join(_fold_component(component) for component in group.split("^")).rstrip("^")


def _fold_component(component: str) -> str:
    """Casefold and strip accents, keeping marks of other scripts (a Japanese voiced sound is another letter)."""
    parted = unicodedata.normalize("NFD", unicodedata.normalize("NFD", component.translate(_WIDTHS)).casefold())
    return unicodedata.normalize("NFC", _ACCENTS.sub("", parted)).translate(_BARRED).strip()
