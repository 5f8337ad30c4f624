"""The relay: the process that speaks to the cloud and serves HTTP. It owns no data.

It applies the cloud's actions to the worklist, delivers the outboxes of worklist and archive to the cloud, and serves
DICOMweb, REST and the pages. Both databases belong to other processes: the relay reads them, settles their outboxes,
and schedules through `Worklist`. `simulator` and `operations` import it; `gateway`, `worklist` and `pacs` never do.
"""
