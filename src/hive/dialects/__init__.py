"""What clients and engines say: routes, bodies, streams and errors of the Ollama, OpenAI and Anthropic APIs."""
