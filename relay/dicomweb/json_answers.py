"""DICOM JSON as DICOMweb answers it (PS3.18 Annex F): in UTF-8, and with absolute addresses of bulk data.

Not for: reading it (`gateway.dataset.dicom_json`), HTTP (`relay.dicomweb.routes`, `relay.dicomweb.wado_rs`).
"""

import json
import re

from gateway.dataset.dicom_json import DicomJson, Element

_CHARACTER_SET = re.compile(rb'"00080005":\{"vr":"CS"(?:,"Value":\[[^\]\\{}]*\])?\}')
_UTF_8 = b'"00080005":{"vr":"CS","Value":["ISO_IR 192"]}'


def published(data_set: DicomJson, bulk_data: str) -> DicomJson:
    """Make a data set fit to leave the house: in UTF-8 (PS3.18 F.1.1), every BulkDataURI absolute.

    `bulk_data` is the address that the archive's relative ones are relative to.
    """
    sent = {key: _with_bulk_data(element, bulk_data) for key, element in data_set.items()}
    return sent | ({"00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}} if "00080005" in sent else {})


def published_text(document: bytes, bulk_data: str) -> bytes:
    """Do the same to the JSON text of a data set, without reading it: four views take a millisecond instead of eight.

    What is looked for are names of members: a quotation mark inside a JSON string is escaped, and none is followed by
    a colon. A character set that is not written as the archive writes it is left to `published`.
    """
    found = _CHARACTER_SET.findall(document)
    if len(found) != document.count(b'"00080005":'):
        return dumped(published(json.loads(document), bulk_data))
    in_unicode = _CHARACTER_SET.sub(_UTF_8, document)
    return in_unicode.replace(b'"BulkDataURI":"', b'"BulkDataURI":' + json.dumps(f"{bulk_data}/").encode()[:-1])


def dumped(value: object) -> bytes:
    """Write JSON; what is no text in Unicode is replaced."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _with_bulk_data(element: Element, address: str) -> Element:
    if "BulkDataURI" in element:
        return {**element, "BulkDataURI": f"{address}/{element['BulkDataURI']}"}
    items = element.get("Value")
    if element.get("vr") == "SQ" and isinstance(items, list):
        return {**element, "Value": [published(item, address) for item in items]}
    return element
