"""Builds the services: the only package that knows all of them, and hands each what it needs."""

from tunesmith.app.opening import App, open_services

__all__ = ["App", "open_services"]
