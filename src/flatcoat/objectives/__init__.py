"""Here are scores: how wrong are they?"""
