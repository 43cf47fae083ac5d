"""Flatcoat: train, check and serve neural retrievers on your own documents.

Import what you use from its room: `from flatcoat.models.dense import DenseModel`. This file stays empty, so that
`import flatcoat` costs nothing.
"""

__version__ = "0.1.0"
