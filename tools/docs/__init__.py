"""The documentation: pages under `docs/` whose `{{ … }}` are filled in from the code and from recorded results."""
