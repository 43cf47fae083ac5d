"""Search behind an existing engine: Qdrant, PostgreSQL with pgvector, Milvus."""
