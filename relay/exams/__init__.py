"""Whether an exam is complete and right: what is known of it, which views were wanted, what is held back."""
