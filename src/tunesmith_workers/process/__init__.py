"""Being a good process: events, stopping, calls, faults and the config."""
