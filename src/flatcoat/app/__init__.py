"""How a person says it."""
