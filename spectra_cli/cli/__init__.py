"""The face that talks to people."""
