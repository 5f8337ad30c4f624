"""The cloud reads a site's DICOMweb through the hybrid connection; the site has no open port."""

import asyncio
import hashlib
import urllib.request

from relay.hybrid.protocol import endpoint
from relay.hybrid.tokens import SasTokens
from simulator.cloud.programme import ACTIONS, KEY, KEY_NAME
from simulator.journey import data_set_of, only_part
from simulator.site import Site, wait_until
from tests.journeys.steps import journey, now


def test_an_exam_is_read_by_the_cloud_bit_by_bit(site: Site) -> None:
    site.stop("relay")
    site.settings["RELAY_UPLOAD_BYTES_PER_SECOND"] = "0"  # at the usual rate 68 MB take a minute
    site.start("relay")
    images = journey(site).run(now=now())
    wait_until(lambda: site.control.listeners() > 0, what="The relay")
    at = endpoint(site.settings["AZURE_RELAY_NAMESPACE"], ACTIONS)
    token = asyncio.run(SasTokens(KEY_NAME, KEY).token(at.audience)).text
    base = f"{at.base.replace('ws', 'http', 1)}/{at.path}/dicom-web"
    for image in images:
        path = f"/studies/{image.study_instance_uid}/series/{image.series_instance_uid}"
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        headers = {"ServiceBusAuthorization": token, "Accept": accept}
        request = urllib.request.Request(f"{base}{path}/instances/{image.sop_instance_uid}", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            data_set = data_set_of(only_part(answer.read(), answer.headers))
        assert hashlib.sha256(data_set).hexdigest() == image.sha256
