"""The way out: the one client that posts to or fetches from addresses that users give, and which ones it may reach."""
