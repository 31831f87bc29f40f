"""Other programs' names and layouts, converted at the border."""
