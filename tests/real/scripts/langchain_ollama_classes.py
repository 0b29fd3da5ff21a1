"""What LangChain's classes for Ollama are used for."""

from langchain_ollama import ChatOllama, OllamaEmbeddings

from report import URL, WEATHER, report


def invoke():
    return ChatOllama(model="tiny-utf8", base_url=URL).invoke("hello").content


def stream():
    return "".join(chunk.content for chunk in ChatOllama(model="tiny-utf8", base_url=URL).stream("hello"))


def validated():
    return ChatOllama(model="tiny-utf8", base_url=URL, validate_model_on_init=True).invoke("hello").content


def tools():
    call = ChatOllama(model="tiny-tool", base_url=URL).bind_tools([WEATHER]).invoke("hello").tool_calls[0]
    return [call["name"], call["args"]]


def embed_query():
    return len(OllamaEmbeddings(model="tiny-embed", base_url=URL).embed_query("hello"))


def embed_documents():
    vectors = OllamaEmbeddings(model="tiny-embed", base_url=URL).embed_documents(["hello", "world"])
    return [len(vector) for vector in vectors]


report(invoke, stream, validated, tools, embed_query, embed_documents)
