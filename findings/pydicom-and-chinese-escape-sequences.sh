#!/bin/sh
# Guess: the Chinese name of PS3.5 K.2 (ISO 2022 IR 58) is read as its letters and written as it was, like the Korean
#        one of I.2 (ISO 2022 IR 149), which is built alike.
# Seen:  read, each run of Chinese letters still has its escape sequence (ESC $ ) A) in front, as text. Written, the
#        escape sequence is missing, without a warning: DCMTK cannot convert the name, and pydicom itself reads other
#        letters.
# With:  pydicom 3.0.2; DCMTK 3.6.7-9~deb12u4 of Debian 12 is the judge.
# Means: names that look equal are not, because one has control characters that nobody sees; and an object or an answer
#        that pydicom has written anew has lost the name.
# Here:  gateway/dataset/character_sets.py completes pydicom's tables, encodes by itself, and is tested with every set
#        of PS3.3 C.12.1.1.2.
. "$(dirname "$0")/setup"
packages pydicom==3.0.2
needs dcmconv dcmtk

python <<'PYTHON'
import subprocess
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian


def save(path: str, terms: str, name: str | bytes) -> None:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = terms.split("\\")
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "2.25.1"
    ds.PatientName = name  # bytes are written as they are
    ds.save_as(path, enforce_file_format=True)


def by_pydicom(path: str) -> str:
    return str(dcmread(path).PatientName)


def by_dcmtk(path: str) -> str:
    """What DCMTK makes of it in UTF-8, or that it cannot."""
    Path("utf-8.dcm").unlink(missing_ok=True)
    subprocess.run(["dcmconv", "+U8", path, "utf-8.dcm"], capture_output=True, check=False)
    return by_pydicom("utf-8.dcm") if Path("utf-8.dcm").exists() else "cannot be converted"


def in_set(escape: bytes, codec: str, *runs: str) -> bytes:
    return b"^".join(escape + run.encode(codec) for run in runs)


KOREAN, CHINESE = "Hong^Gildong=洪^吉洞", "Zhang^XiaoDong=张^小东"
save("korean.dcm", "\\ISO 2022 IR 149", b"Hong^Gildong=" + in_set(b"\x1b$)C", "euc_kr", "洪", "吉洞"))
save("chinese.dcm", "\\ISO 2022 IR 58", b"Zhang^XiaoDong=" + in_set(b"\x1b$)A", "gb2312", "张", "小东"))
save("korean, written.dcm", "\\ISO 2022 IR 149", KOREAN)
save("chinese, written.dcm", "\\ISO 2022 IR 58", CHINESE)

expected = {
    "korean.dcm": (KOREAN, KOREAN),
    "chinese.dcm": ("Zhang^XiaoDong=\x1b$)A张^\x1b$)A小东", CHINESE),
    "korean, written.dcm": (KOREAN, KOREAN),
    "chinese, written.dcm": ("Zhang^XiaoDong=ÕÅ^Ð¡¶«", "cannot be converted"),
}
seen = {path: (by_pydicom(path), by_dcmtk(path)) for path in expected}
for path, (pydicom, dcmtk) in seen.items():
    print(f"{path:21} pydicom {pydicom!r:44} DCMTK {dcmtk!r}")
raise SystemExit(seen != expected)
PYTHON
