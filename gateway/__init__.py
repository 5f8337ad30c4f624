"""The ground floor that worklist, pacs and relay stand on."""

__version__ = "0.1.0"
