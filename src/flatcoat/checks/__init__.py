"""What is silently wrong with this model, collection, index or run?"""
