"""What was trained, used: a file that says what it holds, its classes by name, and a model with predict and fit."""
