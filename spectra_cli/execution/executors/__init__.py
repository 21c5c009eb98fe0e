"""Where units of work are done: in this process, in several, or by the workers of a Dask cluster."""
