"""The audit trail of PS3.15 A.5: its messages, the files that show tampering, and the thread that writes."""
