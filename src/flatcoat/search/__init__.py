"""Here is a question: what are the answers, and why?"""
