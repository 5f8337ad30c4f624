"""The REST for scripts under /api/v1: its operations, its schemas, and their handlers."""
