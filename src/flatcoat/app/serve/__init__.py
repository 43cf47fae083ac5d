"""Search over HTTP: a served folder, its API, its page."""
