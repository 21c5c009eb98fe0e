"""The functions of a notebook: the same work as the commands', returned as data frames and figures."""
