"""Exam quality: what is known of an exam, which views were ordered and have come, which images are held back."""
