"""The page a person looks at: plain HTML, script and style, which talk to the service's HTTP API alone."""
