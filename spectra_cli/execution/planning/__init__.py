"""What is to be done, found and checked before torch is imported."""
