"""The race of pynetdicom's, at the moment that decides it."""

import threading

from pynetdicom import AE
from pynetdicom.association import Association

from gateway.dicom.pynetdicom_race import steady


def test_who_was_let_through_does_not_count_as_paused() -> None:
    association = steady(Association(AE(), "requestor"))
    association._is_paused = True  # what pynetdicom's thread says before it looks

    association._reactor_checkpoint.wait()

    assert association._is_paused is False  # so a request that begins now waits until the thread is really paused


def test_who_is_stopped_stays_paused_until_it_is_let_through() -> None:
    association = steady(Association(AE(), "requestor"))
    association._reactor_checkpoint.clear()
    association._is_paused = True
    thread = threading.Thread(target=association._reactor_checkpoint.wait)

    thread.start()
    thread.join(0.05)
    assert (thread.is_alive(), association._is_paused) == (True, True)
    association._reactor_checkpoint.set()
    thread.join(5)
    assert (thread.is_alive(), association._is_paused) == (False, False)


def test_who_is_stopped_again_before_it_goes_on_says_so_anew() -> None:
    association = steady(Association(AE(), "requestor"))
    association._reactor_checkpoint.clear()
    thread = threading.Thread(target=association._reactor_checkpoint.wait)
    thread.start()
    thread.join(0.05)

    association._is_paused = False  # the caller has served a request of the peer
    with association._reactor_checkpoint._cond:  # type: ignore[attr-defined]  # let through and stopped, too quick to see
        association._reactor_checkpoint._cond.notify_all()  # type: ignore[attr-defined]
    thread.join(0.05)

    assert (thread.is_alive(), association._is_paused) == (True, True)
    association._reactor_checkpoint.set()
    thread.join(5)
