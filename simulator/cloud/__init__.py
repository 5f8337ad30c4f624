"""The pretend programme in the cloud: sends actions, takes events and images, and has bad days on request."""
