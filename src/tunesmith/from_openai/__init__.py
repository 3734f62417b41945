"""Leaving OpenAI: an account's fine-tuning jobs become datasets and jobs of this service, and models of both are compared.

A client of both services, and of nothing else: what is made here is made over this service's HTTP API.
"""
