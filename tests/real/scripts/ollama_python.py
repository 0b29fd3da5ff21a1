"""What the official Python client is used for."""

import asyncio

from ollama import AsyncClient, Client, ResponseError

from report import HELLO, URL, WEATHER, report

client = Client(host=URL)


def chat():
    return client.chat(model="tiny-utf8", messages=HELLO).message.content


def chat_stream():
    parts = list(client.chat(model="tiny-utf8", messages=HELLO, stream=True))
    return [
        "".join(part.message.content for part in parts),
        parts[-1].done,
        parts[-1].done_reason,
        len(parts) > 3,
    ]


def chat_tools():
    call = client.chat(model="tiny-tool", messages=HELLO, tools=[WEATHER]).message.tool_calls[0].function
    return [call.name, call.arguments]


def chat_think():
    message = client.chat(model="tiny-think", messages=HELLO, think=True).message
    return [message.thinking.strip(), message.content.strip()]


def generate():
    return client.generate(model="tiny-utf8", prompt="hello").response


def generate_stream():
    return "".join(part.response for part in client.generate(model="tiny-utf8", prompt="hello", stream=True))


def embed():
    return [len(vector) for vector in client.embed(model="tiny-embed", input=["a", "b"]).embeddings]


def embeddings():
    return len(client.embeddings(model="tiny-embed", prompt="a").embedding)


def show():
    return sorted(client.show("tiny-tool").capabilities)


def list_models():
    return sorted([model.model, len(model.digest)] for model in client.list().models)


def ps():
    return "tiny-utf8:latest" in [model.model for model in client.ps().models]


def async_chat():
    async def ask():
        return (await AsyncClient(host=URL).chat(model="tiny-utf8", messages=HELLO)).message.content

    return asyncio.run(ask())


def async_streams():
    async def ask(client):
        stream = await client.chat(model="tiny-utf8", messages=HELLO, stream=True)
        return "".join([part.message.content async for part in stream])

    async def ask_all():
        client = AsyncClient(host=URL)
        return await asyncio.gather(*[ask(client) for _ in range(4)])

    return sorted(set(asyncio.run(ask_all())))


def missing_model():
    try:
        client.chat(model="nope", messages=HELLO)
    except ResponseError as error:
        return [error.status_code, error.error]


def missing_model_stream():
    try:
        list(client.generate(model="nope", prompt="x", stream=True))
    except ResponseError as error:
        return [error.status_code, error.error]


report(
    chat, chat_stream, chat_tools, chat_think, generate, generate_stream, embed, embeddings, show,
    list_models, ps, async_chat, async_streams, missing_model, missing_model_stream,
)  # fmt: skip
