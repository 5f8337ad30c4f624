"""Odd but legal input over real associations: it is stored, bit for bit, and found."""

import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import JPEG2000Lossless
from structlog.testing import capture_logs

from gateway.dicom.listener import Listener
from pacs import Archive
from pacs.archive.attributes import Json
from pacs.commitment.reporter import Reporter
from pacs.scp import application
from pacs.settings import PacsSettings
from tests.pacs.archive.test_attributes import DEFLATED, EXPLICIT, IMPLICIT, data_sets, encoded, implicit, nest
from tests.tools import corpus
from tests.tools.raw_peer import RawPeer

MG = "1.2.840.10008.5.1.4.1.1.1.2"
UID = "1.2.3.4"


@contextmanager
def site(folder: Path, **options: object) -> Iterator[tuple[Archive, Listener]]:
    archive = Archive.open(folder / "pacs.db", folder / "instances")
    served = application(archive, Reporter(archive, ()), ae_title="SCREENING_PACS", **options)  # type: ignore[arg-type]
    try:
        with Listener(served, host="127.0.0.1", port=0) as listener:
            yield archive, listener
    finally:
        archive.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Archive, Listener]]:
    with site(tmp_path) as both:
        yield both


def kept(served: tuple[Archive, Listener], data: bytes, syntax: str = EXPLICIT, *, sop_class: str = MG) -> Json:
    """Store bytes under UID; they lie there as they were sent, and this is what the index has of them."""
    archive, listener = served
    with RawPeer(listener.port, sop_class, syntax) as peer:
        answer = peer.store(sop_class, UID, data)
    assert (answer.status, answer.error_comment) == (0x0000, None)
    stored = archive.instance(UID)
    assert stored.path.read_bytes()[stored.data_set_offset :] == data
    assert stored.transfer_syntax_uid == syntax
    [found] = archive.find("IMAGE", asked(UID))
    [whole] = archive.metadata("1.2.3", "1.2.3.1", UID)
    assert found["00080018"] == whole["00080018"] == {"vr": "UI", "Value": [UID]}
    return whole


def asked(uid: str) -> Dataset:
    query = Dataset()
    query.SOPInstanceUID = uid
    return query


def explicit(tag: int, vr: str, value: bytes) -> bytes:
    if vr in ("OB", "OW", "SQ", "UN", "UC", "UT", "UR"):
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


PIXELS = explicit(0x7FE00010, "OW", bytes(range(64)))
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_ENDS, ENDS = (struct.pack("<HHI", 0xFFFE, element, 0) for element in (0xE000, 0xE00D, 0xE0DD))


def image(*elements: bytes, uid: bytes = b"1.2.3.4\0", pixels: bytes = PIXELS, front: bytes = b"") -> bytes:
    """A small image in Explicit VR, its elements in the order they are given behind the identifying ones."""
    return b"".join((
        front,
        explicit(0x00080016, "UI", MG.encode() + b"\0"), explicit(0x00080018, "UI", uid),
        explicit(0x00080060, "CS", b"MG"), *elements[:1], explicit(0x00100010, "PN", b"PHANTOM^ODD "),
        explicit(0x0020000D, "UI", b"1.2.3\0"), explicit(0x0020000E, "UI", b"1.2.3.1\0"), *elements[1:], pixels,
    ))  # fmt: skip


def undefined_sequence(tag: int, *items: bytes) -> bytes:
    opened = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    within = b"".join(opened + item + ITEM_ENDS for item in items)
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, UNDEFINED) + within + ENDS


def fragments(*pieces: bytes) -> bytes:
    opened = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED)
    return opened + b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(piece)) + piece for piece in pieces) + ENDS


PRIVATE = (
    explicit(0x00190010, "LO", b"MAKER 1.0 ")
    + explicit(0x00191001, "UN", b"\1\2\3")
    + explicit(0x00191002, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 0))
)
CODE = explicit(0x00080100, "SH", b"R1")

ODD = {
    "a UID padded with a space": image(uid=b"1.2.3.4 "),
    "a UID that is not padded": image(uid=b"1.2.3.4"),
    "a UID with several NUL behind it": image(uid=b"1.2.3.4\0\0\0"),
    "an empty sequence": image(b"", explicit(0x00400555, "SQ", b"")),
    "an empty sequence of undefined length": image(b"", undefined_sequence(0x00400555)),
    "an empty item": image(b"", explicit(0x00400555, "SQ", ITEM), undefined_sequence(0x00540220, b"")),
    "sequences of undefined length": image(
        b"", undefined_sequence(0x00540220, CODE + undefined_sequence(0x00540222, CODE))
    ),
    "private attributes": image(PRIVATE),
    "private attributes without an owner": image(explicit(0x00191001, "LO", b"unknown ")),
    "group lengths": image(
        explicit(0x00100000, "UL", struct.pack("<I", 20)), front=explicit(0x00080000, "UL", bytes(4))
    ),
    "values of odd length": image(explicit(0x00081030, "LO", b"odd"), explicit(0x00280030, "DS", b"0.1\\0.1")),
    "trailing padding": image() + explicit(0xFFFCFFFC, "OB", bytes(126)),
    "one zero behind it": image() + b"\0",
    "a block of zeros behind it": image() + bytes(511),
    "zeros in front of it": bytes(128) + image(),
    "a name with every group and odd delimiters": image(explicit(0x00081048, "PN", b"A^B^C^D^E=\xff=^^\\=")),
    "numbers that are none": image(explicit(0x00081030, "LO", b""), explicit(0x00280030, "DS", b"nan\\x ")),
    "attributes out of order": image(explicit(0x00400555, "SQ", b""), explicit(0x00080005, "CS", b"ISO_IR 100")),
    "no pixels": image(pixels=b""),
    "empty pixels": image(pixels=explicit(0x7FE00010, "OW", b"")),
    "an unknown attribute of an unknown group": image(b"", explicit(0x00FF0001, "UN", b"what")),
}  # fmt: skip


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_what_is_odd_is_stored_as_it_is(served: tuple[Archive, Listener], data: bytes) -> None:
    kept(served, data)


COMPRESSED = {
    "one fragment, empty offset table": fragments(b"", b"\xff\x4fab"),
    "several fragments, empty offset table": fragments(b"", b"\xff\x4f", b"ab", b"cd" * 9),
    "an offset table": fragments(bytes(4), b"\xff\x4fab"),
    "an offset table that is wrong": fragments(b"\xff\xff\xff\xff", b"\xff\x4fab"),
    "an empty fragment": fragments(b"", b"\xff\x4fab", b""),
    "no fragment": fragments(b""),
}


@pytest.mark.parametrize("pixels", COMPRESSED.values(), ids=COMPRESSED)
def test_compressed_pixels_are_stored_however_they_are_cut(served: tuple[Archive, Listener], pixels: bytes) -> None:
    whole = kept(served, image(pixels=pixels) + explicit(0xFFFCFFFC, "OB", bytes(6)), str(JPEG2000Lossless))
    assert whole["7FE00010"] == {"vr": "OB", "BulkDataURI": "7FE00010"}


CHARACTER_SETS = {
    "ISO_IR 6": ("ascii", "PHANTOM^JANE"),
    "ISO_IR 100": ("latin-1", "Süß^Jörg"),
    "ISO_IR 101": ("iso8859-2", "Wałęsa^Łucja"),
    "ISO_IR 109": ("iso8859-3", "Ĉapek^Ĝ"),
    "ISO_IR 110": ("iso8859-4", "Bērziņš^Ķ"),
    "ISO_IR 144": ("iso8859-5", "Люксембург"),
    "ISO_IR 127": ("iso8859-6", "قباني^لنزار"),
    "ISO_IR 126": ("iso8859-7", "Διονυσιος"),
    "ISO_IR 138": ("iso8859-8", "שרון^דבורה"),
    "ISO_IR 148": ("iso8859-9", "Çavuşoğlu"),
    "ISO_IR 203": ("iso8859-15", "Œuvre^€"),
    "ISO_IR 13": ("shift_jis", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    "ISO_IR 166": ("tis-620", "สมศรี^ใจดี"),
    "ISO_IR 192": ("utf-8", "Wang^XiaoDong=王^小东"),
    "GB18030": ("gb18030", "Wang^XiaoDong=王^小东"),
    "GBK": ("gbk", "Wang^XiaoDong=王^小东"),
    "\\ISO 2022 IR 87": ("iso2022_jp", "Yamada^Tarou=山田^太郎"),
    "\\ISO 2022 IR 149": ("euc_kr", "Hong^Gildong"),
    "\\ISO 2022 IR 58": ("ascii", "Zhang^XiaoDong"),
}


@pytest.mark.parametrize("name", CHARACTER_SETS)
def test_names_of_every_character_set_are_stored_as_sent_and_read_right(
    served: tuple[Archive, Listener], name: str
) -> None:
    codec, person = CHARACTER_SETS[name]
    charset = explicit(0x00080005, "CS", name.encode().ljust(len(name) + len(name) % 2))
    raw = person.encode(codec)
    physician = explicit(0x00080090, "PN", raw + b" " * (len(raw) % 2))
    whole = kept(served, image(physician, front=charset))
    alphabetic, _, ideographic = person.partition("=")
    expected = {"Alphabetic": alphabetic} | ({"Ideographic": ideographic} if ideographic else {})
    assert whole["00080090"] == {"vr": "PN", "Value": [expected]}


def test_three_megabytes_of_nested_sequences_are_stored(served: tuple[Archive, Listener]) -> None:
    deep = nest(3_000_000 // 36, EXPLICIT)
    assert len(deep) > 2_900_000
    assert kept(served, deep + image())["00081140"]["vr"] == "SQ"


def test_sequences_of_defined_length_nested_as_deep_as_lengths_allow_are_stored(
    served: tuple[Archive, Listener],
) -> None:
    inner = b""
    for _ in range(2_000):
        inner = explicit(0x00081140, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner)
    kept(served, inner + image())


def implicit_image() -> bytes:
    values = {0x00080016: MG.encode() + b"\0", 0x00080018: b"1.2.3.4\0", 0x00080060: b"MG"}
    values |= {0x0020000D: b"1.2.3\0", 0x0020000E: b"1.2.3.1\0", 0x7FE00010: bytes(64)}
    return b"".join(implicit(tag, value) for tag, value in values.items())


@pytest.mark.parametrize("zeros", [0, 3, 16])
def test_the_same_holds_for_the_other_native_syntaxes(tmp_path: Path, zeros: int) -> None:
    for number, (data, syntax) in enumerate(((implicit_image(), IMPLICIT), (image(), DEFLATED))):
        if syntax == DEFLATED:
            packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            data = packer.compress(data) + packer.flush()  # noqa: PLW2901 - the same image, packed
        with site(tmp_path / str(number)) as served:
            kept(served, data + bytes(zeros), syntax)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(extra=data_sets(), syntax=st.sampled_from([EXPLICIT, IMPLICIT]))
def test_whatever_a_data_set_holds_it_is_kept_bit_for_bit(extra: Dataset, syntax: str) -> None:
    extra.update(corpus.data_set(SOPInstanceUID=UID, StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.1"))
    with tempfile.TemporaryDirectory() as folder, site(Path(folder)) as served, capture_logs():
        kept(served, encoded(extra, syntax), syntax)


PRIVATE_CLASS = "1.3.6.1.4.1.9590.100.1.1"


def test_a_private_class_is_taken_when_it_is_configured(tmp_path: Path) -> None:
    data = image().replace(
        explicit(0x00080016, "UI", MG.encode() + b"\0"), explicit(0x00080016, "UI", PRIVATE_CLASS.encode())
    )
    with site(tmp_path, private_classes=(PRIVATE_CLASS,)) as served:
        kept(served, data, sop_class=PRIVATE_CLASS)


def test_a_private_class_that_is_no_uid_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACS_PRIVATE_CLASSES", f"{PRIVATE_CLASS}, hello")
    with pytest.raises(ValueError, match="not a UID: hello"):
        PacsSettings()
