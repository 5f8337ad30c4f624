"""The DICOM network, PS3.7 and PS3.8, from both ends of an association.

Three layers, each importing only those before it:

1. Pure: `pdu` (bytes of PS3.8), `negotiation` (presentation contexts), `admission` (who is let in), `dimse` (messages).
2. What a service does with a message: `application`, `dispatch`, `store_suboperations`, `event_reports`.
3. Sockets and threads: `transport`, `pdu_stream`, `acceptor` and `listener` for those who call, `requestor` to call.
"""
