"""The ground floor that worklist, pacs and relay stand on, and the roof: operator's command line."""

__version__ = "0.1.0"
