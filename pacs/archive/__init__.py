"""Images in, kept as received, and found again: files, index, and the `Archive` that stands for both."""
