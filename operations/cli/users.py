"""`gateway users`: accounts with a password: add, list, remove, passwd. Each change is in the audit trail.

Not for: accounts (`relay.access.users`).
"""

import getpass
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from gateway.audit import messages
from gateway.audit.messages import Actor, AuditEvent
from gateway.audit.trail import Trail
from gateway.errors import InvalidValue
from gateway.settings import load
from operations.cli.terminal import AsJson, caller, console, print_json
from relay.access.permissions import Role
from relay.access.users import UserFile, account
from relay.settings import RelaySettings

users_app = typer.Typer(
    help="Who may log in to pages and DICOMweb with a password: add, list, remove, passwd.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip

Name = Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 letters, digits and . _ @ -")]


class RoleName(StrEnum):
    """`relay.access.permissions.Role`, as typer wants it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@users_app.command("add")
def users_add(
    name: Name,
    role: Annotated[RoleName, typer.Option(help="What the user may do; each may do what those before it may.")],
) -> None:
    """Let somebody log in, from the next request on.

    viewer sees worklist, studies and images; operator also releases, sends and decides; admin also deletes.

    Example: gateway users add j.smith --role operator
    """
    file = _file()
    new = account(name, Role.named(role.value), _password())
    file.refuse_known(name)
    # In the trail first: a change without a message is worse than a message without a change.
    _audited(f"user {name} added with the role {role.value}")
    file.add(new)
    console.print(f"{name} may log in as {role.value}.", highlight=False, markup=False)


@users_app.command("passwd")
def users_passwd(name: Name) -> None:
    """Change a user's password, from the next request on.

    Example: gateway users passwd j.smith
    """
    file = _file()
    known = file.find(name)
    new = account(name, known.role, _password())
    _audited(f"password of user {name} changed")
    file.replace(new)
    console.print(f"{name} has a new password.", highlight=False, markup=False)


@users_app.command("remove")
def users_remove(name: Name) -> None:
    """Let somebody log in no more, from the next request on.

    Example: gateway users remove j.smith
    """
    file = _file()
    file.find(name)
    _audited(f"user {name} removed")
    file.remove(name)
    console.print(f"{name} may not log in any more.", highlight=False, markup=False)


@users_app.command("list")
def users_list(as_json: AsJson = False) -> None:
    """List who may log in with a password.

    Example: gateway users list
    """
    facts = [{"name": each.name, "role": each.role.name.lower()} for each in _file().read().values()]
    if as_json:
        print_json(facts)
        return
    table = Table("name", "role")
    for fact in facts:
        table.add_row(fact["name"], fact["role"])
    console.print(table if facts else "Nobody.")


def _file() -> UserFile:
    return UserFile(load(RelaySettings).users_path)


def _audited(what: str) -> None:
    settings = load(RelaySettings)
    event, uri = AuditEvent(datetime.now(UTC), settings.site), settings.users_path.resolve().as_uri()
    message = messages.alert(event, Actor(caller()), messages.USERS_CHANGED, uri, what)
    Trail(settings.audit_path).append([message])


def _password() -> str:
    # Never an argument, because other users of the machine can see the arguments of a process.
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise InvalidValue("The two passwords are not the same.")
    return password
