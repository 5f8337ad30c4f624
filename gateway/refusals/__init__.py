"""What was refused lately, and what to do about it: `log` keeps refusals, `remedies` has a sentence for each kind."""

from gateway.refusals.log import FILE_NAME, NoteRefusal, RefusalRecorder, Refused

__all__ = ["FILE_NAME", "NoteRefusal", "RefusalRecorder", "Refused"]
