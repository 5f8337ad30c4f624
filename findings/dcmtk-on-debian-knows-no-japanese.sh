#!/bin/sh
# Guess: DCMTK, built with character set conversion, converts every set of PS3.3 C.12.1.1.2.
# Seen:  ISO 2022 IR 87 (JIS X 0208, the kanji of Japanese names) cannot be converted at all: `dcmconv +U8` ends with 1
#        and writes no file, even when the object has no letter of that set. Korean, katakana, GB18030 and UTF-8 are
#        converted.
# With:  DCMTK 3.6.7-9~deb12u4 of Debian 12, which converts by the iconv of the GNU C library.
# Means: which names DCMTK can read depends on the library that it was built with, not on its version; a test that
#        leaves out what DCMTK refuses does not test Japanese.
# Here:  decoding and encoding of names is the gateway's (gateway/dataset/character_sets.py), judged by pydicom in the
#        sets that DCMTK lacks (tests/worklist/test_character_sets.py).
. "$(dirname "$0")/setup"
packages pydicom==3.0.2
needs dcmconv dcmtk

python <<'PYTHON'
import subprocess
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

NAMES = [
    ("ISO_IR 100", "Müller^Jürgen"),
    ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    ("GB18030", "Wang^XiaoDong=王^小东"),
    ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞"),
    ("ISO_IR 192", "Yamada^Tarou=山田^太郎"),
    ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎"),
    ("\\ISO 2022 IR 87", "Yamada^Tarou"),
]
seen = []
for terms, name in NAMES:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = terms.split("\\")
    ds.SOPClassUID, ds.SOPInstanceUID, ds.PatientName = "1.2.840.10008.5.1.4.1.1.7", "2.25.1", name
    ds.save_as("stored.dcm", enforce_file_format=True)
    Path("utf-8.dcm").unlink(missing_ok=True)
    done = subprocess.run(["dcmconv", "+U8", "stored.dcm", "utf-8.dcm"], capture_output=True, text=True, check=False)
    converted = Path("utf-8.dcm").exists() and dcmread("utf-8.dcm").PatientName == name
    seen.append((terms, "converted" if converted else f"refused, ends with {done.returncode}"))
    print(f"{terms:17} {name}: {seen[-1][1]}")
    if not converted:
        print(f"    {done.stderr.splitlines()[0]}")
raise SystemExit(seen != [(terms, "refused, ends with 1" if "IR 87" in terms else "converted") for terms, _ in NAMES])
PYTHON
