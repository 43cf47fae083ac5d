"""How good a ranking is, whether a difference is real, and what an approximation cost."""
