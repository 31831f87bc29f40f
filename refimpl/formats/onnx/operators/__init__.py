"""Converters, one file an operator of ONNX, or several that are told alike.

A module states OPERATORS, the names of ONNX that it converts, and `convert(here)`, which adds nodes of ours and gives
what the node's first output is; it raises Unsupported, with the reason, where it cannot.
"""
