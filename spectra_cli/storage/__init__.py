"""Where files are and how their bytes come here: on this machine or in remote storage, behind one interface."""
