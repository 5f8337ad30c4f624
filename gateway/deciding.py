"""Who stands for a decision that a person has to take: the one rule for the name, wherever it is typed.

Not here: who may decide (`relay.access`), and what is decided.
"""

from gateway.errors import InvalidValue

LONGEST_NAME = 128
"""As long as the name that an identity provider gives somebody may be here (`relay.oidc`)."""


def require_decider(name: str) -> str:
    """The name without spaces around it. Raises InvalidValue when it is empty, too long or not printable."""
    name = name.strip()
    if not (1 <= len(name) <= LONGEST_NAME and name.isprintable()):
        raise InvalidValue(f"Say who decides this: a name of 1 to {LONGEST_NAME} printable characters.")
    return name
