"""Where queries, documents and judgements come from, and what the next batch is."""
