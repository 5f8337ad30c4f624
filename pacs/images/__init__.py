"""What is in a stored file: frames, pixels, pictures, and the same pixels in another transfer syntax."""
