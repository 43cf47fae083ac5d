"""Here is text: what does the network make of it?"""
