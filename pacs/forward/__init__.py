"""Forwarding of stored objects to site archives (C-STORE SCU): the queue, its rules, and the sender."""
