"""The page of `spectra report`: from a document to HTML."""
