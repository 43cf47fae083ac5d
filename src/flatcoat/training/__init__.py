"""How one step leads to the next, and how it is resumed."""
