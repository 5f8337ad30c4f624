"""A query in one character set finds an item that was scheduled in another, and its answer can be read by who asked.

Queries are written by hand here, letter by letter as PS3.5 has it, because what is under test would otherwise be
compared with itself. The answers are read by pydicom, and by DCMTK where that is installed.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from structlog.testing import capture_logs

from gateway.dataset.character_sets import CharacterSet
from gateway.dataset.data_sets import decode
from gateway.dicom.dimse import Command
from gateway.dicom.listener import Listener
from tests.tools.dcmtk import with_dcmtk
from tests.tools.raw_find import RawFinder, element
from tests.worklist.samples import NOW, item, participant
from worklist import Worklist
from worklist.scp import Scp

UNKNOWN_TO_DCMTK = {"ISO_IR 203", "ISO 2022 IR 87", "ISO 2022 IR 159"}
"""As Debian builds it."""

JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
KATAKANA = "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"
KOREAN = "Hong^Gildong=洪^吉洞=홍^길동"
CHINESE = "Zhang^XiaoDong=张^小东"
WANG = "Wang^XiaoDong=王^小东"

MATRIX = [
    # set of the query, name that is scheduled, name in the query in bytes, set of the answer
    ("", "SMITH^Jane", b"smith^JANE", ""),
    ("", "SMITH^Zo\u00eb", b"smith^zoe", "ISO_IR 192"),
    ("ISO_IR 6", "SMITH^Jane", b"smith*", ""),
    ("ISO_IR 100", "Buc^J\u00e9r\u00f4me", b"BUC^J\xc9R\xd4ME", "ISO_IR 100"),
    ("ISO_IR 100", "Wa\u0142\u0119sa^Anna", b"Walesa*", "ISO_IR 192"),
    ("ISO_IR 101", "Wa\u0142\u0119sa^Anna", b"Wa\xb3\xeasa^Anna", "ISO_IR 101"),
    ("ISO_IR 109", "\u0126al^\u010aensu", b"\xa1al^\xc5ensu", "ISO_IR 109"),
    ("ISO_IR 110", "B\u0113rzi\u0146\u0161^Anna", b"B\xbarzi\xf1\xb9^Anna", "ISO_IR 110"),
    ("ISO_IR 126", "\u0394\u03b9\u03bf\u03bd\u03c5\u03c3\u03b9\u03bf\u03c2", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2",
     "ISO_IR 126"),
    ("ISO_IR 127", "\u0642\u0628\u0627\u0646\u064a^\u0644\u0646\u0632\u0627\u0631",
     b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "ISO_IR 127"),
    ("ISO_IR 138", "\u05e9\u05e8\u05d5\u05df^\u05d3\u05d1\u05d5\u05e8\u05d4", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4",
     "ISO_IR 138"),
    ("ISO_IR 144", "\u041b\u044e\u043acemb\u044bpg", b"\xbb\xee\xdacemb\xebpg", "ISO_IR 144"),
    ("ISO_IR 148", "\u00c7avu\u015fo\u011flu^I\u015f\u0131k", b"\xc7avu\xfeo\xf0lu^I\xfe\xfdk", "ISO_IR 148"),
    ("ISO_IR 166", "\u0e19\u0e32\u0e21\u0e2a\u0e01\u0e38\u0e25", b"\xb9\xd2\xc1\xca\xa1\xd8\xc5", "ISO_IR 166"),
    ("ISO_IR 203", "\u017di\u017eka^\u0152dipe", b"\xb4i\xb8ka^\xbcdipe", "ISO_IR 203"),
    ("ISO_IR 13", "\uff94\uff8f\uff80\uff9e^\uff80\uff9b\uff73", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ISO_IR 13"),
    ("ISO_IR 13", "\u30e4\u30de\u30c0^\u30bf\u30ed\u30a6", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ISO_IR 192"),
    ("\\ISO 2022 IR 87", JAPANESE, b"=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "ISO 2022 IR 6\\ISO 2022 IR 87"),
    ("ISO 2022 IR 13\\ISO 2022 IR 87", KATAKANA,
     b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
     "ISO 2022 IR 13\\ISO 2022 IR 87"),
    ("ISO 2022 IR 6\\ISO 2022 IR 87\\ISO 2022 IR 159", "\u4e02\u5c71^\u592a\u90ce",
     b"\x1b$(D0!\x1b$B;3\x1b(B^\x1b$BB@O:\x1b(B", "ISO 2022 IR 6\\ISO 2022 IR 87\\ISO 2022 IR 159"),
    ("\\ISO 2022 IR 149", KOREAN, b"==\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf", "ISO 2022 IR 6\\ISO 2022 IR 149"),
    ("\\ISO 2022 IR 58", CHINESE, b"=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab", "ISO 2022 IR 6\\ISO 2022 IR 58"),
    ("ISO 2022 IR 6\\ISO 2022 IR 100\\ISO 2022 IR 144", "\u041b\u044e\u043a^\u00c9va",
     b"\x1b-L\xbb\xee\xda^\x1b-A\xc9va", "ISO 2022 IR 6\\ISO 2022 IR 100\\ISO 2022 IR 144"),
    ("ISO 2022 IR 100\\ISO 2022 IR 126", "\u00c9va-\u0394\u03b9", b"\xc9va-\x1b-F\xc4\xe9",
     "ISO 2022 IR 100\\ISO 2022 IR 126"),
    ("ISO_IR 192", JAPANESE, "山田*".encode(), "ISO_IR 192"),
    ("GB18030", WANG, b"=\xcd\xf5^\xd0\xa1\xb6\xab", "GB18030"),
    ("GBK", WANG, b"\xcd\xf5^\xd0\xa1\xb6\xab", "GBK"),
]  # fmt: skip


@pytest.fixture
def port(worklist: Worklist) -> Iterator[int]:
    fixed = {"OLD1": CharacterSet(("ISO_IR 100",)), "OLD2": CharacterSet(("ISO 2022 IR 6", "ISO 2022 IR 87"))}
    application = Scp(worklist, character_sets=fixed).application("SCREENING_MWL")
    with Listener(application, host="127.0.0.1", port=0) as listener:
        yield listener.port


def put(worklist: Worklist, name: str) -> None:
    worklist.schedule(item("ACC1", participant=participant(name)), action_id="1", content_hash="h", now=NOW)
    stranger = item("ACC2", participant=participant("NOBODY", "2"))
    worklist.schedule(stranger, action_id="2", content_hash="h", now=NOW)


def asked(
    port: int, character_set: str, name: bytes, *, transfer_syntax: str = ExplicitVRLittleEndian, title: str = "MAMMO1"
) -> tuple[Command, list[bytes]]:
    """Ask for a name, naming a character set unless it is empty; the last response, and the answers."""
    keys = [element(0x00080005, "CS", character_set.encode(), transfer_syntax)] if character_set else []
    keys += [
        element(0x00080050, "SH", b"", transfer_syntax),
        element(0x00100010, "PN", name, transfer_syntax),
    ]
    with RawFinder(port, transfer_syntax, calling_ae_title=title) as finder:
        return finder.find(b"".join(keys))


@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(("query_set", "scheduled", "name", "answer_set"), MATRIX)
def test_a_query_in_one_character_set_finds_an_item_from_another(
    worklist: Worklist,
    port: int,
    transfer_syntax: str,
    *,
    query_set: str,
    scheduled: str,
    name: bytes,
    answer_set: str,
) -> None:
    put(worklist, scheduled)
    end, answers = asked(port, query_set, name, transfer_syntax=transfer_syntax)
    assert (end.status, end.error_comment) == (0x0000, None)
    [answer] = [decode(data, transfer_syntax) for data in answers]
    assert (answer.AccessionNumber, str(answer.PatientName)) == ("ACC1", scheduled)
    named = answer.get("SpecificCharacterSet", "")
    assert (named if isinstance(named, str) else "\\".join(named)) == answer_set


@with_dcmtk
@pytest.mark.parametrize(
    ("query_set", "scheduled", "name"), [row[:3] for row in MATRIX if not set(row[0].split("\\")) & UNKNOWN_TO_DCMTK]
)
def test_dcmtk_reads_the_same_letters(
    worklist: Worklist, port: int, tmp_path: Path, *, query_set: str, scheduled: str, name: bytes
) -> None:
    put(worklist, scheduled)
    _, [answer] = asked(port, query_set, name)
    file = tmp_path / "answer"
    file.write_bytes(answer)
    read = subprocess.run(
        ["dcmdump", "-f", "-te", "+U8", "+P", "PatientName", str(file)], capture_output=True, timeout=20, check=False
    )
    assert f"[{scheduled}]" in read.stdout.decode(), read


@pytest.mark.parametrize(
    ("title", "scheduled", "shown", "answer_set"),
    [
        ("OLD1", "Buc^J\u00e9r\u00f4me", "Buc^J\u00e9r\u00f4me", "ISO_IR 100"),
        ("OLD1", "Wa\u0142\u0119sa^\u0160\u00e1rka", "Walesa^S\u00e1rka", "ISO_IR 100"),
        ("OLD1", JAPANESE, "Yamada^Tarou=??^??=???^???", "ISO_IR 100"),
        ("OLD2", JAPANESE, JAPANESE, "ISO 2022 IR 6\\ISO 2022 IR 87"),
        ("OLD2", "Buc^J\u00e9r\u00f4me", "Buc^Jerome", "ISO 2022 IR 6\\ISO 2022 IR 87"),
    ],
)
def test_a_machine_that_is_set_to_a_character_set_gets_no_other(
    worklist: Worklist, port: int, *, title: str, scheduled: str, shown: str, answer_set: str
) -> None:
    put(worklist, scheduled)
    with capture_logs() as lines:
        _, [data] = asked(port, "ISO_IR 192", scheduled[:2].encode() + b"*", title=title)
    answer = decode(data, ExplicitVRLittleEndian)
    named = answer.SpecificCharacterSet
    named = named if isinstance(named, str) else "\\".join(named)
    assert (str(answer.PatientName), named) == (shown, answer_set)
    [line] = [line for line in lines if line["event"] == "worklist answered"]
    assert (line["answers"], line["approximate"]) == (1, int(shown != scheduled))


@pytest.mark.parametrize(
    ("query_set", "name", "comment"),
    [
        ("ISO_IR 999", b"\xc9va", "SpecificCharacterSet names a character set that is not known."),
        ("ISO_IR 192", b"J\xe9r\xf4me", "PatientName is not in the character set that the query names."),
        ("ISO_IR 109", b"\xa5\xae", "PatientName is not in the character set that the query names."),
        ("ISO_IR 100", b"\x1b$B;3ED\x1b(B", "PatientName is not in the character set that the query names."),
        ("\\ISO 2022 IR 87", b"\x1b$B\xff\xfe;", "PatientName is not in the character set that the query names."),
        ("GB18030", b"\xff\xff\xff", "PatientName is not in the character set that the query names."),
    ],
)
def test_letters_that_are_none_are_refused_with_a_sentence_and_the_association_lives(
    worklist: Worklist, port: int, query_set: str, name: bytes, comment: str
) -> None:
    put(worklist, "SMITH^Jane")
    with RawFinder(port, ExplicitVRLittleEndian) as finder:
        keys = element(0x00080005, "CS", query_set.encode()) + element(0x00100010, "PN", name)
        with capture_logs() as lines:
            end, answers = finder.find(keys)
        again, _ = finder.find(element(0x00100010, "PN", b""))
    assert (end.status, answers, again.status) == (0xA900, [], 0x0000)
    [reason] = [line["reason"] for line in lines if line["event"] == "request refused"]
    assert (reason, end.error_comment) == (comment, comment if len(comment) <= 64 else f"{comment[:61]}...")


@pytest.mark.parametrize("query_set", ["ISO_IR 999", "latin1", "ISO_IR 100 extra"])
def test_an_unknown_character_set_does_no_harm_to_a_query_in_ascii(
    worklist: Worklist, port: int, query_set: str
) -> None:
    put(worklist, "SMITH^Jane")
    with RawFinder(port, ExplicitVRLittleEndian) as finder:
        keys = element(0x00080005, "CS", query_set.encode("latin-1")) + element(0x00100010, "PN", b"smith*")
        end, [answer] = finder.find(keys)
    assert (end.status, str(decode(answer, ExplicitVRLittleEndian).PatientName)) == (0x0000, "SMITH^Jane")


def test_a_character_set_of_garbage_is_refused(worklist: Worklist, port: int) -> None:
    put(worklist, "SMITH^Jane")
    with RawFinder(port, ExplicitVRLittleEndian) as finder:
        end, answers = finder.find(element(0x00080005, "CS", b"\x1b\x00\xff") + element(0x00100010, "PN", b"s*"))
    assert (end.status, end.error_comment, answers) == (0xC000, "The data set cannot be read (ValueError).", [])


@pytest.mark.parametrize("spelled", ["ISO-IR 100", "iso ir 100", "ISO_IR_100", "ISO_IR 100 ", "ISO 2022 IR 100"])
def test_a_misspelled_character_set_is_understood(worklist: Worklist, port: int, spelled: str) -> None:
    put(worklist, "Buc^J\u00e9r\u00f4me")
    _, [answer] = asked(port, spelled, b"BUC^J\xc9R\xd4ME")
    assert str(decode(answer, ExplicitVRLittleEndian).PatientName) == "Buc^J\u00e9r\u00f4me"
