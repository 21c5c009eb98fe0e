"""Bytes on disk become named, lazily read tensors."""
