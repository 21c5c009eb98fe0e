"""Imported once by the process that commands under test are forked from: all that they would import."""

import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401

import spectra_cli.analyses.align_summary
import spectra_cli.analyses.rank_summary
import spectra_cli.analyses.sva_summary
import spectra_cli.cli.main
import spectra_cli.execution.incremental.filling
import spectra_cli.execution.trajectory.job  # noqa: F401
