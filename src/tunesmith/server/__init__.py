"""The process that answers: taking the state folder's lock, listening, the limits of connections, the server's own log.

Imports nothing by itself: the command line asks ``state_lock`` who holds a folder, and must start fast.
"""
