"""Here is a query's representation: which rows are best?"""
