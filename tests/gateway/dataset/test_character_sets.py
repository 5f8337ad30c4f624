"""gateway.dataset.character_sets: texts that fit, texts that do not, and values of (0008,0005)."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.charset import TEXT_VR_DELIMS, convert_encodings, decode_bytes
from pydicom.values import convert_PN

from gateway.dataset.character_sets import DEFAULT_REPERTOIRE, UNICODE, CharacterSet, DoesNotFit, character_set

SETS = (
    "ISO_IR 13", "ISO_IR 100", "ISO_IR 101", "ISO_IR 109", "ISO_IR 110", "ISO_IR 126", "ISO_IR 127", "ISO_IR 138",
    "ISO_IR 144", "ISO_IR 148", "ISO_IR 166", "ISO_IR 203", "ISO_IR 192", "GB18030", "GBK", "\\ISO 2022 IR 87",
    "ISO 2022 IR 13\\ISO 2022 IR 87\\ISO 2022 IR 159", "\\ISO 2022 IR 149", "\\ISO 2022 IR 58",
    "ISO 2022 IR 100\\ISO 2022 IR 101\\ISO 2022 IR 144\\ISO 2022 IR 166\\ISO 2022 IR 203",
    "ISO 2022 IR 6\\ISO 2022 IR 100\\ISO 2022 IR 126\\ISO 2022 IR 127\\ISO 2022 IR 138\\ISO 2022 IR 148",
)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "terms"),
    [
        ("", ()),
        ("ISO_IR 6", ()),
        ("ISO 2022 IR 6", ()),
        ("ISO_IR 100", ("ISO_IR 100",)),
        ("iso-ir 100 ", ("ISO_IR 100",)),
        ("ISO2022 IR 100", ("ISO 2022 IR 100",)),
        ("\\ISO 2022 IR 87", ("ISO 2022 IR 6", "ISO 2022 IR 87")),
        ("ISO_IR 100\\ISO 2022 IR 126", ("ISO 2022 IR 100", "ISO 2022 IR 126")),
        ("ISO 2022 IR 149", ("ISO 2022 IR 6", "ISO 2022 IR 149")),
        ("ISO_IR 192\\ISO 2022 IR 87", ("ISO_IR 192",)),
        ("ISO 2022 IR 100\\ISO_IR 192", ("ISO 2022 IR 100",)),
    ],
)
def test_a_value_names_a_character_set(value: str, terms: tuple[str, ...]) -> None:
    assert character_set(value).terms == terms


@pytest.mark.parametrize("value", ["ISO_IR 999", "latin1", "utf-8", "ISO_IR 100\\x", "ISO 2022 IR 192"])
def test_a_value_that_names_none_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="not a character set"):
        character_set(value)


@pytest.mark.parametrize(
    ("named", "name", "encoded"),
    [  # PS3.5 Annexes H to K
        ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう",
         b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"),
        ("ISO 2022 IR 13\\ISO 2022 IR 87", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
         b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J"),
        ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동",
         b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"),
        ("\\ISO 2022 IR 58", "Zhang^XiaoDong=张^小东",
         b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东",
         b"Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe4\xb8\x9c"),
        ("GB18030", "Wang^XiaoDong=王^小东", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab"),
    ],
)  # fmt: skip
def test_names_are_written_as_in_the_standard(named: str, name: str, encoded: bytes) -> None:
    assert character_set(named).encoded_name(name) == encoded


@pytest.mark.parametrize(
    ("named", "text"),
    [("", "\u00e9"), ("ISO_IR 100", "\u0142"), ("ISO_IR 13", "\u5c71"), ("\\ISO 2022 IR 87", "\u00e9")],
)
def test_what_does_not_fit_is_not_written(named: str, text: str) -> None:
    with pytest.raises(DoesNotFit):
        character_set(named).encoded(text)


@pytest.mark.parametrize(
    ("named", "text", "nearest"),
    [
        ("ISO_IR 100", "Wa\u0142\u0119sa \u00d8 \u592a", "Walesa \u00d8 ?"),
        ("", "Stra\u00dfe \u00c6 \u2019", "Strasse AE '"),
        ("ISO_IR 144", "\u041b\u044e\u00e9", "\u041b\u044ee"),
        ("ISO_IR 192", "\u1200", "\u1200"),
    ],
)
def test_the_nearest_text_that_fits(named: str, text: str, nearest: str) -> None:
    assert character_set(named).nearest(text) == nearest


@given(st.sampled_from(SETS), st.text(max_size=8))
@example("\\ISO 2022 IR 87", "\u587e")  # `=N` between its escape sequences: no end of a component group
@settings(deadline=None, max_examples=200)
def test_what_is_written_is_read_the_same_by_pydicom(named: str, text: str) -> None:
    one = character_set(named)
    plain = "".join(letter for letter in one.nearest(text) if letter >= " " and letter not in "\x7f\\^=")
    encodings = convert_encodings(list(one.terms))
    assert decode_bytes(one.encoded(plain), encodings, TEXT_VR_DELIMS) == plain
    name = f"{plain}^{plain}={plain}"
    assert str(convert_PN(one.encoded_name(name), encodings)) == name.rstrip(" ").rstrip("=")


@given(st.text(max_size=8))
@settings(deadline=None, max_examples=100)
def test_everything_fits_into_unicode_and_something_always_does(text: str) -> None:
    assert UNICODE.encoded(text).decode() == text
    assert DEFAULT_REPERTOIRE.encoded(DEFAULT_REPERTOIRE.nearest(text)).isascii()
    assert CharacterSet(()) == DEFAULT_REPERTOIRE


def test_the_first_set_is_called_back_before_a_delimiter() -> None:
    encoded = character_set("ISO 2022 IR 100\\ISO 2022 IR 126").encoded_name("Δ=é")
    assert encoded == b"\x1b-F\xc4\x1b-A=\xe9"


def test_a_set_of_g0_is_not_called_back_in_the_place_of_one_of_g1() -> None:
    assert character_set("ISO 2022 IR 87\\ISO 2022 IR 100").encoded_name("é") == b"\x1b-A\xe9"
