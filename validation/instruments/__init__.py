"""What checks are made with: counting, drawn cases, measured memory, statements of the papers."""
