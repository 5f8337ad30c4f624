"""The DICOM network, PS3.7 and PS3.8, from both ends of an association.

Three layers, each importing only those before it:

1. Pure: `pdu` (bytes of PS3.8), `negotiation` (presentation contexts), `admission` (accepted callers), `dimse`
   (messages).
2. Services and their messages: `application`, `dispatch`, `store_suboperations`, `event_reports`.
3. Sockets and threads: `transport`, `pdu_stream`, `acceptor` and `listener` for callers, `requestor` for our calls.
"""
