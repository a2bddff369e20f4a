"""Where the cells of an experiment are lived: processes of this machine, or a Ray cluster."""
