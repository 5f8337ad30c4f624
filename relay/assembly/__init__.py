"""Where settings become parts, and parts the relay. The only package that knows `relay.settings`."""
