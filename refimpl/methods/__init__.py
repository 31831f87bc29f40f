"""Methods of the papers, one a file: the passes that each one replaces."""
