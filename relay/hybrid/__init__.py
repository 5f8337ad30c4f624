"""Azure Relay Hybrid Connections: the listener, its channels and exchanges, the sender. Python has no library of it."""
