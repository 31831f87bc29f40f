"""`python -m gradledger`."""

from .cli import main

main()
