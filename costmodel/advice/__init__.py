"""Questions before deployment: what fits, what pays, which plan to take."""
