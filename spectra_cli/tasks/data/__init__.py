"""Data of the tasks: what ships with the package, what is generated, and local copies as people have them."""
