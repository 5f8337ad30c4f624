"""Makes the parts of the relay from its settings. The only package of the relay that knows `relay.settings`."""
