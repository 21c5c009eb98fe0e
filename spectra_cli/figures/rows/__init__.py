"""Rows of tables, brought together and shaped as arrays to draw; no matplotlib and no HTML."""
