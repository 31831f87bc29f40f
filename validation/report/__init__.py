"""The report of `gradledger validate`."""
