"""Run a Program: its memory, the loop, what guards it, and what is saved."""
