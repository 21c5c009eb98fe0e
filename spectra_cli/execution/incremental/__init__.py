"""Tables made unit by unit: what is there is kept, what is finished is safe at once, the rest is done."""
