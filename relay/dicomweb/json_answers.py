"""DICOM JSON as DICOMweb answers it (PS3.18 Annex F): in UTF-8, and with absolute addresses of bulk data.

Not here: reading it (`gateway.dataset.dicom_json`), HTTP (`relay.dicomweb.routes`, `relay.dicomweb.wado_rs`).
"""

import json
import re

from gateway.dataset.dicom_json import DicomJson, Element

_CHARACTER_SET = re.compile(rb'"00080005":\{"vr":"CS"(?:,"Value":\[[^\]\\{}]*\])?\}')
_UTF_8 = b'"00080005":{"vr":"CS","Value":["ISO_IR 192"]}'


def published(data_set: DicomJson, bulk_data: str) -> DicomJson:
    """Prepare a data set for an answer: in UTF-8 (PS3.18 F.1.1), every BulkDataURI absolute.

    `bulk_data` is the base of the archive's relative addresses, without a final slash.
    """
    sent = {key: _with_bulk_data(element, bulk_data) for key, element in data_set.items()}
    return sent | ({"00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}} if "00080005" in sent else {})


def published_text(document: bytes, bulk_data: str) -> bytes:
    """Do the same to the JSON text (UTF-8) of a data set, without parsing it."""
    # Because it takes 1 ms for four views, and parsing takes 8. Only names of members can match here: a quotation mark
    # inside a JSON string is escaped, and none is followed by a colon.
    matches = _CHARACTER_SET.findall(document)
    if len(matches) != document.count(b'"00080005":'):  # not as the archive writes it
        return dumped(published(json.loads(document), bulk_data))
    in_unicode = _CHARACTER_SET.sub(_UTF_8, document)
    return in_unicode.replace(b'"BulkDataURI":"', b'"BulkDataURI":' + json.dumps(f"{bulk_data}/").encode()[:-1])


def dumped(value: object) -> bytes:
    """Write JSON in UTF-8; lone surrogates are replaced."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _with_bulk_data(element: Element, address: str) -> Element:
    if "BulkDataURI" in element:
        return {**element, "BulkDataURI": f"{address}/{element['BulkDataURI']}"}
    items = element.get("Value")
    if element.get("vr") == "SQ" and isinstance(items, list):
        return {**element, "Value": [published(item, address) for item in items]}
    return element
