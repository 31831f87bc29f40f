"""The command line: composition of refimpl, costmodel and validation, and nothing else."""
