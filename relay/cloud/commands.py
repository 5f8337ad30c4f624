"""Carries out the cloud's actions, one verb each, and answers every message at once.

Every refusal is a structured answer; this is the only place where errors become answers for the cloud. An action is
acknowledged after it is committed. The worklist knows by action id which actions it has carried out, with which
content, and which of two for one item was made later. A long-running action is stored, answered, and carried out
afterwards (`relay.cloud.deferred`).

Not here: understanding a message (`relay.protocol`), the connection (`relay.hybrid.listener`), rules about items
(`worklist`).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial

import structlog

from gateway.errors import Refusal, Unsupported
from gateway.messages import (
    Action,
    CancelItem,
    CollectDiagnostics,
    CreateItem,
    CreateTestItem,
    Echo,
    Health,
    HealthReport,
    NewItem,
    RequestImage,
    RescheduleItem,
    RunSelftest,
    UpdateItem,
    UpdateStatus,
)
from gateway.refusals import NoteRefusal, Refused
from gateway.refusals.log import unnoted
from gateway.refusals.remedies import CLOUD
from relay import protocol
from relay.cloud.deferred import DeferredActions
from relay.cloud.full_images import FullImages
from relay.cloud.site_tasks import SiteTasks
from relay.protocol import Json
from worklist import Item, Worklist

log = structlog.get_logger()

INTERNAL: Json = {
    "status": "error",
    "code": "internal",
    "message": "The gateway failed to do this; its log says why. The same action may be sent again.",
}


@dataclass(frozen=True)
class Context:
    """The parts that actions use. `cloud_zone` is the zone of times the cloud sends, None for the site's wall time."""

    worklist: Worklist
    requests: DeferredActions
    full_images: FullImages
    site_tasks: SiteTasks
    health: Callable[[], HealthReport]
    clock: Callable[[], datetime]
    cloud_zone: tzinfo | None = None
    notify: Callable[[Action], None] = lambda _action: None
    """Called with each action that was carried out; never waits, never raises."""
    note: NoteRefusal = unnoted
    """Called with each refusal, for people on site."""


async def answer(text: str, context: Context) -> str:
    """Answer one message of the cloud; never raises."""
    action_id: str | None = None
    try:
        message = protocol.parse(text)
        action_id = protocol.claimed_action_id(message)
        return protocol.encode(await apply(protocol.decode(message), context))
    except Refusal as refusal:
        log.warning("action refused", action_id=action_id, code=refusal.code, reason=str(refusal))
        context.note(Refused("cloud command", CLOUD + refusal.code, str(refusal), about=action_id or ""))
        return protocol.encode(protocol.refused(refusal, action_id=action_id))
    except Exception:  # a fault of ours is answered too, because the cloud would wait for an answer in vain
        log.exception("action failed", action_id=action_id)
        return protocol.encode({**INTERNAL, "action_id": action_id})


async def apply(action: Action, context: Context) -> Json:
    """Carry out an action and return the answer. Raises a Refusal when it cannot be done."""
    work: Callable[[], Json]
    match action:
        case CreateItem() | CreateTestItem():
            work = partial(_create, action, context)
        case UpdateItem():
            work = partial(_update, action, context)
        case UpdateStatus():
            work = partial(_update_status, action, context)
        case CancelItem():
            work = partial(_cancel, action, context)
        case RescheduleItem():
            work = partial(_reschedule, action, context)
        case RequestImage() | RunSelftest() | CollectDiagnostics():
            work = partial(_request, action, context)
        case Health():
            work = partial(_health, action, context)
        case Echo():
            return {"status": "echo", "payload": action.payload}
        case _:
            raise Unsupported(f"Unsupported action: {action.action_type}")
    done = await asyncio.to_thread(work)  # databases block
    context.notify(action)
    return done


def _request(action: RequestImage | RunSelftest | CollectDiagnostics, context: Context) -> Json:
    # An action id has one content, whether the worklist or the outbox remembers it.
    context.worklist.expect_unused(protocol.origin(action, now=context.clock()))
    if isinstance(action, RequestImage):
        context.full_images.accept(action)
    else:
        context.site_tasks.accept(action)
    log.info("request accepted", action_id=action.action_id, action_type=action.action_type)
    return {"status": "processed", "action_id": action.action_id}


def _create(action: CreateItem | CreateTestItem, context: Context) -> Json:
    now = context.clock()
    context.requests.expect_same(action)
    origin = protocol.origin(action, now=now)
    item = context.worklist.schedule(
        _item(action, action.parameters, context),
        action_id=origin.action_id,
        content_hash=origin.content_hash,
        asked_at=origin.asked_at,
        now=now,
    )
    log.info("item scheduled", action_id=action.action_id, accession_number=item.accession_number)
    # After the item, which it performs. If the relay is killed in between, the repeat of the action stores it.
    if isinstance(action, CreateTestItem):
        context.site_tasks.accept(action)
    return {"status": "created", "action_id": action.action_id}


def _update(action: UpdateItem, context: Context) -> Json:
    item, now = _item(action, action.parameters, context), context.clock()
    return _updated(context.worklist.update(item, now=now, origin=protocol.origin(action, now=now)))


def _item(action: Action, parameters: NewItem, context: Context) -> Item:
    wanted = parameters.worklist_item
    here = wanted.model_copy(update={"scheduled": protocol.site_time(wanted.scheduled, cloud=context.cloud_zone)})
    return Item.from_message(here, action_id=action.action_id, appointment_id=action.source_reference.appointment_id)


def _update_status(action: UpdateStatus, context: Context) -> Json:
    wanted, now = action.parameters.worklist_item, context.clock()
    origin = protocol.origin(action, now=now)
    return _updated(context.worklist.change_status(wanted.accession_number, wanted.status, now=now, origin=origin))


def _cancel(action: CancelItem, context: Context) -> Json:
    wanted, now = action.parameters.worklist_item, context.clock()
    origin = protocol.origin(action, now=now)
    return _updated(context.worklist.cancel(wanted.accession_number, now=now, origin=origin))


def _reschedule(action: RescheduleItem, context: Context) -> Json:
    wanted, now = action.parameters.worklist_item, context.clock()
    here = protocol.site_time(wanted.scheduled, cloud=context.cloud_zone)
    origin = protocol.origin(action, now=now)
    return _updated(
        context.worklist.reschedule(wanted.accession_number, date=here.date, time=here.time, now=now, origin=origin)
    )


def _updated(item: Item) -> Json:
    log.info("item updated", accession_number=item.accession_number, state=item.state, revision=item.revision)
    return {"accession_number": item.accession_number, "status": "updated"}


def _health(action: Health, context: Context) -> Json:
    report = context.health().model_dump(mode="json")
    return {"status": "ok", "action_id": action.action_id or None, "health": report}
