"""The versions and settings of a site, without secrets.

Not for: its state (`state`).
"""

import os
import platform
import sys
from importlib.metadata import distributions
from urllib.parse import urlsplit

from gateway import __version__
from gateway.settings import GatewaySettings, variables
from gateway.sqlite import SQLITE_VERSION
from operations.site_settings import SiteSettings

Facts = dict[str, object]


def versions() -> Facts:
    """Versions of the gateway, its packages and the system."""
    packages = {each.metadata["Name"]: each.version for each in distributions() if each.metadata["Name"]}
    return {
        "gateway": __version__,
        "python": sys.version,
        "sqlite": SQLITE_VERSION,
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "packages": dict(sorted(packages.items())),
    }


def settings_facts(settings: SiteSettings) -> Facts:
    """Every setting with its value; of a secret, whether it is set."""
    of_all: Facts = {}
    for each in (settings.worklist, settings.pacs, settings.relay):
        of_all |= _one_settings_facts(each)
    return of_all


def _one_settings_facts(settings: GatewaySettings) -> Facts:
    facts: Facts = {}
    for variable, name in zip(variables(type(settings)), type(settings).model_fields, strict=True):
        value, field = getattr(settings, name), type(settings).model_fields[name]
        if "Secret" in repr(field.annotation):
            facts[variable] = "set" if value and value.get_secret_value() else "not set"
        else:
            facts[variable] = _without_credentials(str(value))
    return facts


def _without_credentials(text: str) -> str:
    """An address without user, password and query; any other text as it is."""
    # Also in settings that are not secret: a proxy may have its password in the URL, a token may be in a query.
    if "://" not in text:
        return text
    parts = urlsplit(text)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
