"""The main surface: the Ollama, OpenAI and Anthropic APIs as clients know them."""
