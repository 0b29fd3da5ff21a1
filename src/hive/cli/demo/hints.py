"""The commands to try next. Each one works when it is pasted into a shell on this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from hive.cli.demo.machines import CHAT_MODEL
from hive.cli.demo.screen import Screen

_MODELS_NAMED = 4

_CURL = """\
curl {url}/api/chat \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'"""

_OLLAMA = 'OLLAMA_HOST={url} ollama run {model} "Hello"'

_OPENAI = """\
python3 - <<'END'
from openai import OpenAI
hive = OpenAI(base_url="{url}/v1",
              api_key="{client_key}")
messages = [{{"role": "user", "content": "Hello"}}]
answer = hive.chat.completions.create(model="{model}", messages=messages)
print(answer.choices[0].message.content)
END"""

_HIVE = """\
export HIVE_HUB={url}
export HIVE_API_KEY={admin_key}
{hive} nodes"""

_NODE = """\
{hive} keys create desk --role worker > desk.key
{hive} node --hub {url} --key-file desk.key"""


def show_hints(screen: Screen, url: str, client_key: str, admin_key: str, real_models: Sequence[str]) -> None:
    """Print what a user can do with the hub while it runs."""
    words = {
        "url": url,
        "model": CHAT_MODEL,
        "client_key": client_key,
        "admin_key": admin_key,
        "hive": hive_command(),
    }
    screen.say(f"\n{url} is up until Ctrl-C. To try, in another terminal:", style="bold")
    screen.say("\nOllama's API, and Ollama's command line (on this machine they need no key)")
    screen.code(_CURL.format(**words))
    screen.code(_OLLAMA.format(**words))
    screen.say("\nThe openai package, with the demo's client key")
    screen.code(_OPENAI.format(**words))
    screen.say("\nHive's own commands (models, ps, keys list, ...), with the demo's admin key")
    screen.code(_HIVE.format(**words))
    screen.say("\nOne more node, in that terminal: its key, and its agent, which finds the engines of its machine")
    screen.say("(this hub hears this machine only; for others: hive serve --host 0.0.0.0, and the agent there)")
    screen.code(_NODE.format(**words))
    if real_models:
        more = len(real_models) - _MODELS_NAMED
        named = ", ".join(real_models[:_MODELS_NAMED]) + (f" and {more} more" if more > 0 else "")
        screen.say(f"\nReal models here, to put in place of {CHAT_MODEL}: {named}")


def hive_command() -> str:
    """Return the command for the `hive` that runs now: its name if the shell finds that, else its path."""
    found = shutil.which("hive")
    running = Path(sys.argv[0])
    if running.stem != "hive" or (found is not None and os.path.samefile(found, running)):
        return "hive"
    path = running.absolute()
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
