"""What LlamaIndex's class for Ollama is used for."""

from llama_index.core.llms import ChatMessage
from llama_index.llms.ollama import Ollama

from report import URL, report

llm = Ollama(model="tiny-utf8", base_url=URL, request_timeout=30)
HELLO = [ChatMessage(role="user", content="hello there")]


def complete():
    return llm.complete("hello").text


def stream_complete():
    return list(llm.stream_complete("hello"))[-1].text


def chat():
    return llm.chat(HELLO).message.content


def stream_chat():
    return "".join(part.delta for part in llm.stream_chat(HELLO))


report(complete, stream_complete, chat, stream_chat)
