# pip: ollama==0.6.3
"""The ollama package: list, show, chat, generate, embed, tools and a format."""

import json

import ollama

from checks import MODEL, URL, run

client = ollama.Client(host=URL)
ASK = [{"role": "user", "content": "Who are you?"}]
COLD = {"temperature": 0, "num_predict": 40}


def check_the_model_is_listed_and_shown():
    assert MODEL in [m.model for m in client.list().models]
    assert client.show(MODEL).details


def check_a_chat_and_its_stream_say_the_same():
    whole = client.chat(MODEL, messages=ASK, options=COLD)
    parts = [c.message.content for c in client.chat(MODEL, messages=ASK, options=COLD, stream=True)]
    assert whole.message.content == "".join(parts) != "" and whole.done and whole.eval_count > 0


def check_generate():
    assert client.generate(MODEL, prompt="The sea", options=COLD).response


def check_a_format_is_kept():
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"],
              "additionalProperties": False}
    r = client.chat(MODEL, messages=ASK, format=schema, options={"temperature": 0, "num_predict": 100})
    assert isinstance(json.loads(r.message.content)["age"], int)


run(globals())
