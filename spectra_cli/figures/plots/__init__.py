"""The figures of `spectra plot`, a module for each family of them."""
