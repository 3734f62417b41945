"""The OpenAI-shaped door: the calls of OpenAI's SDKs, translated onto the records that the other doors have."""
