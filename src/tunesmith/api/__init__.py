"""The front doors: one module each, with routes and the structs of their requests and answers, nothing else.

Rules live in the services; ``problems`` turns their errors into HTTP, ``access`` decides who may call what.
"""
