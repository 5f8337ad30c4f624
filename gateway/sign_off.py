"""Sign-off: the name and the reason that go with a decision a person has to take, checked alike wherever it is typed.

Not here: which role may decide (`relay.access.permissions`), the decisions.
"""

from gateway.errors import InvalidValue

LONGEST_NAME = 128
"""The same limit as for a user's name from an identity provider (`relay.access.oidc_tokens`)."""

LONGEST_REASON = 200


def require_decider(name: str) -> str:
    """The name without spaces around it. Raises InvalidValue when it is empty, too long or not printable."""
    name = name.strip()
    if not (1 <= len(name) <= LONGEST_NAME and name.isprintable()):
        raise InvalidValue(f"Say who decides this: a name of 1 to {LONGEST_NAME} printable characters.")
    return name


def require_reason(text: str) -> str:
    """The reason without spaces around it. Raises InvalidValue when it is empty, too long or not printable."""
    text = text.strip()
    if not (1 <= len(text) <= LONGEST_REASON and text.isprintable()):
        raise InvalidValue(f"Say why, in 1 to {LONGEST_REASON} printable characters.")
    return text
