"""Stages that stand before a recipe's training, as tests of recipes write them."""

BEFORE = """
[[before]]
name = "post"
task = "mlm"
length = 16
[before.training]
steps = {steps}
batch = 8
[[before]]
name = "interaction"
[before.training]
steps = {steps}
batch = 8
[before.cascade]
late = true
late_dim = 8
"""
