"""Recent refusals: `log` keeps them, `remedies` has a sentence for each kind that says how to correct it."""

from gateway.refusals.log import FILE_NAME, NoteRefusal, RefusalRecorder, Refused

__all__ = ["FILE_NAME", "NoteRefusal", "RefusalRecorder", "Refused"]
