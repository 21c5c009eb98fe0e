"""Units of work, what is told of them, and what is asked of those that do them; nothing here knows a command."""
