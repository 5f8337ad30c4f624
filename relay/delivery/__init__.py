"""Events on their way to the cloud: both outboxes, delivered to every destination, in order per subject."""
