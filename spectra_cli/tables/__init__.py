"""Numbers become Parquet tables with one schema each."""
