"""The shared base of worklist, pacs and relay, which imports none of them."""

__version__ = "0.1.0"
