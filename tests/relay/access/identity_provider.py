"""A small identity provider with a page of its own: a working stand-in over real HTTP, on another site."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

import jwt

from tests.relay.access.test_oidc_tokens import RSA_1, jwk

PAGE = b'<!DOCTYPE html><title>Provider of identities</title><form method="post"><button>I am Ida</button></form>'
CLIENT, SECRET = "gateway client", "s:e c&ret"


@dataclass
class IdentityProvider:
    """What it knows and was asked; `claims` go into the ID token, `answer` into what it sends people back with."""

    url: str = ""
    secret: str = ""
    claims: dict[str, object] = field(default_factory=dict)
    answer: dict[str, str] = field(default_factory=dict)
    said: dict[str, object] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def discovery(self) -> dict[str, object]:
        endpoints = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return {"issuer": self.url, **{name: f"{self.url}/{path}" for name, path in endpoints.items()}, **self.said}

    def redirection(self, asked: dict[str, str]) -> str:
        """Where somebody is sent back to who has shown who he is."""
        self.asked.append(asked)
        code = secrets.token_urlsafe(8)
        self.codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.url, **self.answer}
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, object]]:
        """Exchange a code, once, for whom it was made for (RFC 6749 4.1.3, RFC 7636 4.6)."""
        asked = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        shown = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        name, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        if self.secret and (unquote_plus(name), unquote_plus(secret)) != (CLIENT, self.secret):
            return 401, {"error": "invalid_client"}
        if asked is None or shown != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "sub": "u1", "exp": now + 60, "nonce": asked["nonce"],
                  "preferred_username": "ida", "roles": ["operator"], **self.claims}  # fmt: skip
        return 200, {"id_token": jwt.encode(claims, RSA_1, algorithm="RS256", headers={"kid": "one"})}


@contextmanager
def provided(**known: object) -> Iterator[IdentityProvider]:
    """Run it as http://localhost, which browsers take for another site than 127.0.0.1."""
    provider = IdentityProvider(**known)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/authorize":
                self._answer(200, PAGE, {"Content-Type": "text/html"})
            elif parts.path == "/keys":
                self._json(200, {"keys": [jwk(RSA_1, "one")]})
            else:
                self._json(200, provider.discovery())

        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
            if parts.path == "/authorize":
                self._answer(303, b"", {"Location": provider.redirection(dict(parse_qsl(parts.query)))})
            else:
                self._json(*provider.token(dict(parse_qsl(body)), self.headers.get("Authorization", "")))

        def _json(self, status: int, content: dict[str, object]) -> None:
            self._answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.url = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
