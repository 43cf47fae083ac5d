"""Which negatives would teach the most now?"""
