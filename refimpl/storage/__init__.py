"""Files of the user: opened with bounds, and written so that a crash leaves the old or the new."""
