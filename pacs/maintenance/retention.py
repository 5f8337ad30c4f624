"""Retention: which studies may be removed, and their removal. Off unless the site sets a number of days.

A study is removed whole, the one that got its last image longest ago first, when none of `RULES` holds it. Images that
the cloud or a site archive has not confirmed are never removed; a full disk stays full then, and images are refused.

The rows go, and the removal of their files is ordered, in one transaction. The pacs process removes the files
(`remove_ordered`); after a crash the next call goes on.

Not for: scrub and damage (`scrub`), expiry of the worklist (`worklist.expiry`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from gateway.errors import Conflict
from gateway.sqlite import utc_text
from pacs.archive import removal_rows
from pacs.archive.archive import Archive
from pacs.archive.files import Files
from pacs.archive.maintenance_rows import MaintenanceRows, StudyFacts

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Days that a study is kept after its last image, and whether all of it has to be committed before it goes."""

    days: int
    needs_commitment: bool = False

    def until(self, now: datetime) -> datetime:
        """Studies that got an image at this time or later stay."""
        return now - timedelta(days=self.days)


_Rule = Callable[[StudyFacts, RetentionPolicy, datetime], bool]

RULES: tuple[tuple[str, _Rule], ...] = (
    ("it is too young", lambda study, policy, now: study.last_received_at >= utc_text(policy.until(now))),
    ("the cloud has not confirmed all of it", lambda study, _policy, _now: study.confirmed != study.instances),
    ("the cloud is still owed events of it", lambda study, _policy, _now: study.pending > 0),
    (
        "its safekeeping was not promised to the modality",
        lambda study, policy, _now: policy.needs_commitment and study.committed != study.instances,
    ),
    ("a site archive has not confirmed all of it", lambda study, _policy, _now: study.unforwarded > 0),
    ("a file of it is damaged, which somebody has to look at", lambda study, _policy, _now: study.damaged > 0),
)
"""Reasons why a study stays; it goes when none of these holds. No other code decides."""


@dataclass(frozen=True, slots=True)
class RetentionOutcome:
    """The decision about one study: `kept_because` is empty when it goes."""

    study: StudyFacts
    kept_because: tuple[str, ...]


def judge(study: StudyFacts, policy: RetentionPolicy, *, now: datetime) -> RetentionOutcome:
    """Evaluate every rule."""
    return RetentionOutcome(study, tuple(reason for reason, holds in RULES if holds(study, policy, now)))


def candidates(archive: Archive, policy: RetentionPolicy, *, now: datetime) -> Iterator[RetentionOutcome]:
    """The studies that are old enough, oldest first, and whether they may go. Changes nothing."""
    for study in MaintenanceRows(archive).studies_until(utc_text(policy.until(now))):
        yield judge(study, policy, now=now)


def prune(archive: Archive, policy: RetentionPolicy, *, now: datetime) -> Iterator[RetentionOutcome]:
    """Remove the studies that may go, oldest first; each outcome is yielded after its commit.

    Files follow by `remove_ordered`.
    """
    for outcome in candidates(archive, policy, now=now):
        yield outcome if outcome.kept_because else _let_go(archive, outcome, policy, now=now)


def _let_go(archive: Archive, outcome: RetentionOutcome, policy: RetentionPolicy, *, now: datetime) -> RetentionOutcome:
    rows = MaintenanceRows(archive)
    with archive.write() as conn:
        study = rows.facts(conn, outcome.study.id)
        if study is None:
            return outcome
        # Evaluated again in the transaction, because an image of the study may have come since the list was read.
        latest = judge(study, policy, now=now)
        if latest.kept_because:
            return latest
        rows.order_removal(conn, study.id, now=now)
    log.info(
        "study pruned",
        study_instance_uid=study.study_instance_uid,
        accession_number=study.accession_number,
        instances=study.instances,
        size_bytes=study.size_bytes,
    )
    return latest


def delete(
    archive: Archive,
    policy: RetentionPolicy,
    study_instance_uid: str,
    series_instance_uid: str = "",
    sop_instance_uid: str = "",
    *,
    now: datetime,
) -> int:
    """Remove a study, or a series or instance of it, on request; return how many instances go.

    The rules are evaluated for the whole study, whatever part of it shall go. Raises NotFound, and Conflict with every
    reason why it stays. Files follow by `remove_ordered`.
    """
    with archive.write() as conn:
        study = MaintenanceRows(archive).facts_of(conn, study_instance_uid)
        # One second later, because with a policy of 0 days an image of this very moment must not be too young.
        outcome = judge(study, policy, now=now + timedelta(seconds=1))
        if outcome.kept_because:
            raise Conflict(f"Study {study_instance_uid} stays as it is: {'; '.join(outcome.kept_because)}.")
        count = removal_rows.order(conn, study.id, series_instance_uid, sop_instance_uid, now=now)
    log.info(
        "deleted on request",
        study_instance_uid=study_instance_uid,
        series_instance_uid=series_instance_uid,
        sop_instance_uid=sop_instance_uid,
        instances=count,
    )
    return count


def remove_ordered(archive: Archive, files: Files) -> int:
    """Remove the files whose removal is ordered, unless a backup is being taken; return how many.

    Only for the process that owns the folder.
    """
    rows = MaintenanceRows(archive)
    with files.changeable() as changeable:
        count = 0
        while changeable and (ordered := rows.removals()):
            for uid in ordered:
                # In the turn of the UID, because the same image may be coming in again; its new row cancels the order.
                with archive.turn(uid):
                    if rows.shall_go(uid):
                        files.remove([uid])
            rows.removed(ordered)
            count += len(ordered)
    return count
