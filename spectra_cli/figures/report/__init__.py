"""The content of `spectra report`: from tables to a document."""
