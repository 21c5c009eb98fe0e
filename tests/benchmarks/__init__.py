"""Measurements to run by hand, and the synthetic checkpoint they share with the tests."""
