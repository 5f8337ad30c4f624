"""A GET of this machine to its own relay, for checks.

Not for: requests of viewers and scripts, which bring credentials of their own.
"""

import urllib.error
import urllib.request
from contextlib import suppress
from http import HTTPStatus

from operations.site_settings import relay_url
from relay.access.users import CHECK, basic
from relay.assembly.http_access import own_tls
from relay.settings import RelaySettings


def get(relay: RelaySettings, path: str) -> bytes:
    """The body of the answer to GET, also of 503, which says what is not well. Raises OSError.

    The credential is the one that the relay leaves on disk for this at each start.
    """
    request = urllib.request.Request(relay_url(relay) + path)  # noqa: S310 - our own address
    with suppress(OSError):  # absent when the relay has never run; then the connection fails, which is reported
        request.add_header("Authorization", basic(CHECK, relay.own_token_path.read_text()))
    try:
        with urllib.request.urlopen(request, timeout=10, context=own_tls(relay)) as answer:  # noqa: S310 - as above
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.SERVICE_UNAVAILABLE:  # not well, and the body says why
            return error.read()
        raise
