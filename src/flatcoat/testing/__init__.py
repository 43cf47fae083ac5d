"""Contract suites that any implementation of a protocol can run: `from flatcoat.testing.index import IndexContract`."""
