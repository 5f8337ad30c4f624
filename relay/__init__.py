"""The relay: the only room that knows the cloud and HTTP, and the one that owns no data.

It takes the cloud's actions to the worklist, and brings to the cloud what worklist and archive owe it; it serves
DICOMweb and the pages. Both databases belong to others: the relay reads them, settles their outboxes, and schedules
through `Worklist`, never by itself. Nobody imports it but the roof.
"""
