"""What both sides of a process agree on, and the only package that workers import. The standard library, msgspec and PyYAML only.

A service of one version meets processes that another one started: nothing in here may change its meaning.
"""
