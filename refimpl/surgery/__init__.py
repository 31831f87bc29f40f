"""Change a net: prune channels, cut layers off."""
