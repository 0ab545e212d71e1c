#!/usr/bin/env python3
"""Renders chat templates by jinja2, configured as transformers configures it, over a set of
conversations; writes tests/golden/chat.json. Needs jinja2.

    tests/golden/make_chat_golden.py [FOLDER]

FOLDER may hold *.jinja files of published models; their outputs go into the golden by file name
(the test uses them where that folder is there), the templates below with their text. Those are
the forms that the model cards of Llama 2, Llama 3, Mistral 7B Instruct v0.1 to v0.3, Gemma 1 to 3,
Phi-3, phi-4, ChatML and SmolLM2 describe. "bare" is without add_generation_prompt.
"""
import json
import pathlib
import sys

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

ALTERNATE = ("{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
             "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}")
LOOP = "{% for message in messages %}"
END = "{% endfor %}"
CHATML = (LOOP + "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
          + END + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
SYSTEM_FIRST = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
                "{% set system_message = messages[0]['content'] %}{% else %}"
                "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}")

PHI3_TURNS = ("{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}"
              "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}"
              "{% endif %}" + END +
              "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}")

TEMPLATES = {
    "chatml": CHATML,
    "smollm2": LOOP + "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n"
               "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}"
               "{% endif %}" + CHATML[len(LOOP):],
    "llama-2": SYSTEM_FIRST + "{% for message in loop_messages %}" + ALTERNATE +
               "{% if loop.index0 == 0 and system_message != false %}"
               "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
               "{% else %}{% set content = message['content'] %}{% endif %}"
               "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
               "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}"
               "{% endif %}" + END,
    "llama-3": "{% set loop_messages = messages %}{% for message in loop_messages %}"
               "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ "
               "message['content'] | trim + '<|eot_id|>' %}"
               "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
               "{{ content }}" + END + "{% if add_generation_prompt %}"
               "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "mistral-v0.1": "{{ bos_token }}" + LOOP + ALTERNATE +
                    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
                    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}"
                    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
                    "{% endif %}" + END,
    "mistral-v0.2": "{{ bos_token }}" + LOOP + ALTERNATE +
                    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
                    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
                    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
                    "{% endif %}" + END,
    "mistral-v0.3": SYSTEM_FIRST + "{{ bos_token }}{% for message in loop_messages %}" + ALTERNATE +
                    "{% if message['role'] == 'user' %}"
                    "{% if loop.last and system_message %}"
                    "{{ '[INST] ' + system_message + '\\n\\n' + message['content'] + '[/INST]' }}"
                    "{% else %}{{ '[INST] ' + message['content'] + '[/INST]' }}{% endif %}"
                    "{% elif message['role'] == 'assistant' %}"
                    "{{ ' ' + message['content'] | trim + eos_token }}{% endif %}" + END,
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
             "{{ raise_exception('System role not supported') }}{% endif %}" + LOOP + ALTERNATE +
             "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
             "{% else %}{% set role = message['role'] %}{% endif %}"
             "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}" + END +
             "{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}",
    "gemma-3": "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n"
               "    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}\n"
               "    {%- set loop_messages = messages[1:] -%}\n{%- else -%}\n"
               "    {%- set first_user_prefix = \"\" -%}\n    {%- set loop_messages = messages -%}\n{%- endif -%}\n"
               "{%- for message in loop_messages -%}\n" + ALTERNATE + "\n"
               "    {%- if (message['role'] == 'assistant') -%}\n        {%- set role = \"model\" -%}\n"
               "    {%- else -%}\n        {%- set role = message['role'] -%}\n    {%- endif -%}\n"
               "    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else \"\") }}\n"
               "    {%- if message['content'] is string -%}\n        {{ message['content'] | trim }}\n"
               "    {%- endif -%}\n    {{ '<end_of_turn>\n' }}\n{%- endfor -%}\n"
               "{%- if add_generation_prompt -%}\n    {{'<start_of_turn>model\n'}}\n{%- endif -%}\n",
    "phi-3-first": "{{ bos_token }}" + LOOP + "{% if (message['role'] == 'user') %}"
                   "{{'<|user|>' + '\\n' + message['content'] + '<|end|>' + '\\n' + '<|assistant|>' + '\\n'}}"
                   "{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\\n'}}{% endif %}"
                   + END,
    "phi-3": LOOP + "{% if message['role'] == 'system' %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}"
             + PHI3_TURNS,
    "phi-3.5": LOOP + "{% if message['role'] == 'system' and message['content'] %}"
               "{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}" + PHI3_TURNS,
    "phi-4": LOOP + "{% if (message['role'] == 'system') %}"
             "{{'<|im_start|>system<|im_sep|>' + message['content'] + '<|im_end|>'}}"
             "{% elif (message['role'] == 'user') %}"
             "{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}"
             "{% elif (message['role'] == 'assistant') %}"
             "{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}" + END +
             "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
}

TALKS = [
    [("user", "Hello")],
    [("system", "Be brief."), ("user", "Hello")],
    [("user", "Hello"), ("assistant", "Hi!"), ("user", "And?")],
    [("system", "Be brief."), ("user", "One"), ("assistant", "1"), ("user", "Two"),
     ("assistant", "2"), ("user", "Three")],
    [("user", "  spaces \n around\t"), ("assistant", " kept? \n"), ("user", "\u00e9\u6f22\U0001f600 \"q\" \\n")],
    [("system", " padded system \n"), ("user", " padded user ")],
    [("system", "S"), ("user", "   ")],
    [("assistant", "I begin")],
    [("user", "a"), ("user", "b")],
    [("system", "only")],
    [("user", "")],
    [("system", ""), ("user", "Hello")],
]


def refuse(message):
    raise TemplateError(message)


def render(source, talk, bos, eos, answer):
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.globals["raise_exception"] = refuse
    env.filters["tojson"] = lambda x, **kw: json.dumps(x, ensure_ascii=False, **kw)
    messages = [{"role": r, "content": c} for r, c in talk]
    try:
        return env.from_string(source).render(messages=messages, bos_token=bos, eos_token=eos,
                                              add_generation_prompt=answer)
    except TemplateError:
        return None


def main():
    rows = []
    sources = [(name, text, None) for name, text in TEMPLATES.items()]
    if len(sys.argv) > 1:
        wanted = ["Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "google-gemma-2-2b-it", "microsoft-Phi-3.5-mini-instruct",
                  "meta-llama-Llama-3.1-8B-Instruct", "mistralai-Mistral-Nemo-Instruct-2407"]
        for name in wanted:
            path = pathlib.Path(sys.argv[1]) / f"{name}.jinja"
            sources.append((name, path.read_text(encoding="utf-8"), path.name))
    for name, text, file in sources:
        talks = [{"messages": [{"role": r, "content": c} for r, c in talk],
                  "want": render(text, talk, "<s>", "</s>", True),
                  "bare": render(text, talk, "<s>", "</s>", False)} for talk in TALKS]
        rows.append({"name": name, **({"file": file} if file else {"source": text}), "talks": talks})
    out = pathlib.Path(__file__).parent / "chat.json"
    out.write_text(json.dumps({"bos": "<s>", "eos": "</s>", "templates": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
