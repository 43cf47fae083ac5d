"""Flatcoat's models and searches as components of other tools, one module a tool."""
