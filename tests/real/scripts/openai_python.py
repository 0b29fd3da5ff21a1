"""What the openai client is used for."""

import os

from openai import AuthenticationError, NotFoundError, OpenAI

from report import HELLO, URL, WEATHER, report

client = OpenAI(base_url=URL + "/v1", api_key=os.environ.get("HIVE_TEST_KEY", "sk-dummy"), timeout=30)
embedder = OpenAI(base_url=os.environ.get("HIVE_TEST_EMBED_URL", URL) + "/v1", api_key=client.api_key, timeout=30)
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def chat():
    choice = client.chat.completions.create(model="tiny-utf8", messages=HELLO).choices[0]
    return [choice.message.content, choice.finish_reason]


def chat_stream():
    chunks = list(client.chat.completions.create(model="tiny-utf8", messages=HELLO, **WITH_USAGE))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    usage = chunks[-1].usage
    return [text, reasons[-1], usage.total_tokens == usage.prompt_tokens + usage.completion_tokens]


def chat_tools():
    asked = {"model": "tiny-tool", "messages": HELLO, "tools": [WEATHER], "max_tokens": 200}
    call = client.chat.completions.create(**asked).choices[0].message.tool_calls[0].function
    return [call.name, sorted(call.arguments.replace(" ", "").strip("{}").split(","))]


def completions():
    asked = {"model": "tiny-babble", "prompt": "hello", "max_tokens": 4, "seed": 7, "temperature": 0}
    return client.completions.create(**asked).usage.completion_tokens


def embeddings():
    base64 = client.embeddings.create(model="tiny-embed", input=["hello"]).data[0].embedding
    floats = client.embeddings.create(model="tiny-embed", input=["hello"], encoding_format="float")
    difference = max(abs(a - b) for a, b in zip(base64, floats.data[0].embedding, strict=True))
    return [len(base64), difference < 1e-6]


def models_list():
    return sorted(model.id.removesuffix(":latest") for model in client.models.list())


def models_retrieve():
    return client.models.retrieve("tiny-utf8").id


def responses():
    return client.responses.create(model="tiny-utf8", input="hello").output_text


def responses_stream():
    events = list(client.responses.create(model="tiny-utf8", input="hello", stream=True))
    return [events[0].type, events[-1].type, events[-1].response.output_text]


def missing_model():
    try:
        client.chat.completions.create(model="nope", messages=HELLO)
    except NotFoundError as error:
        return [error.status_code, error.body["message"]]


def missing_model_retrieve():
    try:
        client.models.retrieve("nope")
    except NotFoundError as error:
        return [error.status_code, error.body["type"]]


def bad_key():
    refused = OpenAI(base_url=URL + "/v1", api_key="sk-wrong", timeout=30)
    try:
        refused.chat.completions.create(model="tiny-utf8", messages=HELLO)
    except AuthenticationError as error:
        return [error.status_code, error.response.headers.get("x-should-retry")]


report(
    chat, chat_stream, chat_tools, completions, embeddings, models_list, models_retrieve,
    responses, responses_stream, missing_model, missing_model_retrieve, bad_key,
)  # fmt: skip
