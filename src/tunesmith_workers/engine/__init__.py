"""The built-in serving engine: many chats computed together, token by token, behind OpenAI chat completions on loopback."""
