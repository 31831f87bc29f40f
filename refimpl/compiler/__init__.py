"""From a graph and a plan to a Program: logical calls, their launches, and the place of every array."""
