"""``python -m spectra_cli``."""

from spectra_cli.cli.main import main

main()
