"""What the cloud is told: the outboxes brought to every destination, in order, for as long as it takes."""
