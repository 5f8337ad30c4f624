"""Azure Relay Hybrid Connections: listener, channels, exchanges and sender. There is no Python library for it."""
