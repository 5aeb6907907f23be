"""What every command-line run has: configuration, run directory, phases, devices, session."""
