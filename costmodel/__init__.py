"""What a training step costs, before it runs: operations, bytes and seconds from SymPy formulas of its passes."""
