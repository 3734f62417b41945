"""Attempts as processes on this machine: the executor, the shim that outlives the server, identities, slots."""
