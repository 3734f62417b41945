"""What a run.sh, or the service, starts: one short module for each program."""
