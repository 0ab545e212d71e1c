#!/usr/bin/env python3
"""Renders chat templates by jinja2, configured as transformers configures it, over 20 conversations.
Needs jinja2 3.1 (not among the requirements of the end-to-end tests: a virtual environment of its own).

    tests/golden/make_jinja_golden.py > tests/golden/jinja.json   the templates below
    tests/golden/make_jinja_golden.py FOLDER... > FILE            *.jinja of the folders instead
    VRAMD_JINJA_GOLDEN=FILE build/tests/text/test_jinja           compares them too

compare_templates.py compares the prompts of a running server over the same conversations.
"""
import datetime
import json
import pathlib
import sys

import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2026, 3, 4, 5, 6, 7)


class Generation(jinja2.ext.Extension):
    """{% generation %}, as transformers' AssistantTracker parses it."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: \
        json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, id="call_12345"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a place, \"now\" <or> then & there.",
    "parameters": {"type": "object", "required": ["place"], "properties": {
        "place": {"type": "string", "description": "Where"},
        "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14}}}}}
SUM = {"type": "function", "function": {"parameters": {
    "properties": {"zeta": {"type": ["number", "null"]}, "alpha": {"type": "array", "items": {"type": "number"}}},
    "type": "object"}, "strict": True, "name": "sum"}}
ASK = [message("user", "What is the weather in Zürich?")]
CALLED = ASK + [message("assistant", None, tool_calls=[call("get_weather", {"place": "Zürich", "days": 3})]),
                message("tool", "{\"t\": 21.5}", name="get_weather", tool_call_id="call_12345")]


def conversations():
    """(name, variables beyond those that are always there)"""
    hello = [message("user", "Hello"), message("assistant", "Hi there."), message("user", "How are you?")]
    many = [message("system", "Be brief.")]
    for i in range(40):
        many.append(message("user" if i % 2 == 0 else "assistant", f"Turn {i}: " + "word " * (i % 7) + "\n"))
    numbers = {"x": 1.0, "y": 1e-7, "z": 0.12345678901234567, "big": 1e22, "n": -3, "t": True, "none": None,
               "list": [], "dict": {}, "nested": {"b": [1, 2.5, "c"], "a": {"k": "v"}}}
    yield {"messages": ASK}
    yield {"messages": hello}
    yield {"messages": [message("system", "You are <b>bold</b> & 'quoted' \"twice\".")] + hello}
    yield {"messages": [message("user", "  \n white space \t\n ")] + hello[1:]}
    yield {"messages": [message("user", "日本語 é ß İ \u00a0 \u2028 😀 \x7f"), message("assistant", "\u00a0ÉÉ\u2003")] + ASK}
    yield {"messages": [message("user", "{{ bos_token }} {% if x %} <|im_end|> </s> [INST] <think>")]}
    yield {"messages": [message("system", ""), message("user", ""), message("assistant", ""), message("user", "x")]}
    yield {"messages": ASK, "tools": [WEATHER]}
    yield {"messages": [message("system", "Use tools.")] + ASK, "tools": [WEATHER, SUM]}
    yield {"messages": CALLED, "tools": [WEATHER]}
    yield {"messages": CALLED + [message("assistant", "21.5 degrees."), message("user", "Thanks")], "tools": [WEATHER, SUM]}
    yield {"messages": ASK + [message("assistant", "", tool_calls=[
        call("get_weather", {"place": "A"}, "call_00001"), call("sum", numbers, "call_00002")]),
        message("tool", "one", name="get_weather", tool_call_id="call_00001"),
        message("tool", "two", name="sum", tool_call_id="call_00002")], "tools": [WEATHER, SUM]}
    yield {"messages": hello[:1] + [message("assistant", "<think>\nsteps\n</think>\n\nAnswer", reasoning_content="steps")] + ASK}
    yield {"messages": hello[:1] + [message("assistant", "Answer", reasoning_content="Some\nthoughts\n", reasoning="Some\nthoughts\n")] + ASK,
           "enable_thinking": False}
    yield {"messages": hello, "enable_thinking": True, "reasoning_effort": "high"}
    yield {"messages": [message("user", "a"), message("user", "b"), message("assistant", "c"), message("assistant", "d")]}
    yield {"messages": hello[:2], "add_generation_prompt": False}
    yield {"messages": many}
    yield {"messages": [message("user", [{"type": "text", "text": "Part one"}, {"type": "text", "text": " and two"}])]}
    yield {"messages": [message("developer", "Rules.", name="dev"), message("user", "Hi", name="Ann")], "documents": None,
           "date_string": "01 Jan 2026"}


def variables(conversation):
    return {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "tools": None,
            "documents": None, "add_generation_prompt": True, **conversation}


def own_templates():
    """One for each family of constructs that published templates use."""
    loop = "{% for message in messages %}"
    return [
        "{{ bos_token }}" + loop + "{{ '<|im_start|>' + message.role + '\\n' + (message.content|string)|trim + "
        "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        # tools as JSON, in every form
        "{%- if tools %}\n    {{- '# Tools' }}\n    {%- for tool in tools %}\n        {{- '\\n' }}{{ tool | tojson }}\n"
        "        {{- tool|tojson(indent=4) }}{{ tool | tojson(ensure_ascii=True, separators=(',', ':')) }}\n    {%- endfor %}\n"
        "{%- else %}\nnone\n{%- endif %}\n" + loop + "{{ message | tojson }}{{ message }}\n{% endfor %}\n",
        # namespaces, backward search, content in parts
        "{%- set ns = namespace(multi=true, last=messages|length - 1, text='') %}\n{%- for message in messages[::-1] %}\n"
        "{%- set index = (messages|length - 1) - loop.index0 %}\n"
        "{%- if ns.multi and message.role == 'user' and message.content is string and not "
        "(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}\n"
        "{%- set ns.multi = false %}{%- set ns.last = index %}\n{%- endif %}\n{%- endfor %}\n{{ ns.last }}\n" + loop +
        "{% if message.content is string %}{% set content = message.content %}{% elif message.content is iterable %}"
        "{% set ns.text = '' %}{% for part in message.content %}{% if part.type == 'text' %}{% set ns.text = ns.text ~ part.text %}"
        "{% endif %}{% endfor %}{% set content = ns.text %}{% else %}{% set content = '' %}{% endif %}"
        "[{{ loop.index }}/{{ loop.length }} {{ loop.revindex }} {{ loop.revindex0 }} {{ loop.first }} {{ loop.last }}] "
        "{{ content.split('</think>')[-1].lstrip('\\n') }}|{{ content.split('\\n', 1)|tojson }}|{{ content|upper }}|"
        "{{ content|lower }}|{{ content|title }}|{{ content|capitalize }}|{{ content.strip()|replace('a', 'ä') }}\n{% endfor %}",
        # macros with defaults, recursion over a schema
        "{% macro kind(schema, depth=0, pre='  ') %}\n{% if schema.type is string %}{{ pre * depth }}{{ schema.type }}\n"
        "{% elif schema.type is iterable %}{{ schema.type|join(' | ') }}\n{% endif %}\n{% for k, v in (schema.properties or {}).items() %}\n{{ k }}{{ '?' if k not in (schema.required or []) }}: {{ kind(v, depth + 1) }}{% if v.enum is defined "
        "%}{{ v.enum|map('tojson')|join(', ') }}{% endif %}{{ v.default|default('-') }}\n{% endfor %}\n{% endmacro %}\n"
        "{% for tool in tools or [] %}{% set f = tool.function %}{{ f.name }}: {{ kind(f.parameters, pre='> ') }}"
        "{{ f.description|default('none', true)|indent(2, first=true) }}\n{% else %}no tools\n{% endfor %}",
        # calls and results, neighbours, break and continue
        loop + "{% if message.role == 'developer' %}{% continue %}{% endif %}{% if loop.index0 > 30 %}{% break %}{% endif %}"
        "{% if message.tool_calls is defined and message.tool_calls %}{% for call in message.tool_calls %}{% set call = call.function %}"
        "<call>{{ call.name }}{% for k, v in call.arguments|items %} {{ k }}={{ v if v is string else v|tojson }}"
        "{{ v is number }}{{ v is mapping }}{{ v is none }}{% endfor %}{{ call.arguments|dictsort|first }}{{ call.arguments }}</call>"
        "{% endfor %}{% elif message.role == 'tool' %}{% if loop.previtem and loop.previtem.role != 'tool' %}<results>{% endif %}"
        "{{ message.content }}{% if loop.last or loop.nextitem.role != 'tool' %}</results>{% endif %}{% else %}"
        "{{ message['content'] if message['content'] is not none }}{% endif %}{% endfor %}",
        # generation, set blocks, filter blocks, raw, comments and white space control
        "{# comment #}\n  {#- stripped -#}  \n" + loop + "  {% set body %}\n  {{ message.role }}:\n  {% endset %}\n"
        "{% set short | trim | upper %} {{ message.role }} {% endset %}{{ body }}{{ short }}\n"
        "   {%+ if true %} kept {% endif +%}\n{% generation %}{{ message.content }}{% endgeneration %}\n"
        "{% filter trim %}  {{ message.role }}  {% endfilter %}{% raw %}{{ raw }} {% x %}{% endraw %}\n{%- endfor -%}  \n end ",
        # sequences
        "{% set users = messages|selectattr('role', 'equalto', 'user')|list %}{{ users|length }} {{ (messages|first).role }} "
        "{{ (messages|last).role }} {{ messages|map(attribute='role')|unique|join(',') }} {{ messages|rejectattr('role', 'in', "
        "['user', 'system'])|map(attribute='role')|list }} {{ messages|map(attribute='role')|sort|list }} "
        "{{ range(2, 9, 3)|list }} {{ (1, 'a', None) }} {{ [1.0, 'it\\'s', \"q\\\"\", true] }} {{ {'a': {'b': 1e-7}} }} "
        "{{ messages[1:]|length }} {{ messages[0].role[:2] }}{{ messages[0].role[-2:] }}{{ messages[0].role[::-1] }} "
        "{{ 'sys' in messages[0].role }} {{ messages[0].role ~ 1 ~ none ~ 2.50 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 * 3 - 1 }} "
        "{{ '%s-%d-%.2f'|format('a', 3, 1.005) }} {{ '%05d|%-4s|%x' % (42, 'ab', 255) }} {{ '{} {1} {n}'.format('p', 'q', n='r') if false }} "
        "{{ 'a{0}b{x}'.format('p', x='q') }} {{ [3, 1, 2]|sort(reverse=true) }} {{ ['b', 'A', 'c']|sort }} {{ ['b', 'A']|min }} "
        "{{ 3.14159|round(2) }} {{ 2.5|round }} {{ '12'|int + 1 }} {{ 'x'|int(7) }} {{ ' a b  c '.split() }} {{ 'a,b,,c'.rsplit(',', 1) }} "
        "{{ 'straße'|upper }} {{ 'ΑΣ'|lower }} {{ \"they're ok\".title() }} {{ 'one two'.find('two') }} {{ 'banana'.count('an') }} "
        "{{ 'a\\nb\\n'.splitlines() }} {{ messages[0].get('x', 'd') }} {{ messages[0].keys()|list }} {{ messages[0]|length }}",
        # undefined, tests, operators
        "{{ missing }}{{ missing is defined }}{{ missing|default('d') }}{{ none|default('d') }}{{ ''|default('d', true) }}"
        "{{ messages is sequence }}{{ messages[0] is sequence }}{{ messages[0] is mapping }}{{ 1 is number }}{{ true is number }}"
        "{{ true is integer }}{{ 1 == true }}{{ '1' == 1 }}{{ 1.0 == 1 }}{{ none is none }}{{ tools is none }}{{ documents is defined }}"
        "{{ 'x' if false }}{{ messages[99] is defined }}{{ messages[0].zip is defined }}{{ not missing }}{{ missing or 'else' }}"
        "{{ 0 and 1 }}{{ 'a' and 'b' }}{{ 1 < 2 and 2 >= 2 }}{{ 'b' > 'a' }}{{ [1, 2] == [1, 2] }}{{ (1, 2) == [1, 2] }}{{ (x.y is defined) if (x is defined) }}"
        "{% for c in missing %}{{ c }}{% else %}empty{% endfor %}{{ {'items': 1}.items is callable }}{{ {'items': 1}['items'] }}"
        "{{ 1 in [1] }}{{ 'k' in {'k': 1} }}{{ 3 not in (1, 2) }}{{ 1e16 }} {{ 123456789.0 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ 0.1 + 0.2 }}"
        " {{- 0.0 }} {{ 12345678901234567890 }} {{ strftime_now('%d %B %Y') }} {% set a, b = 1, 'x' %}{{ a }}{{ b }}"
        "{% for k, v in {'p': 1, 'q': 2}.items() %}{{ k }}{{ v }}{% endfor %}{{ ['a', 'b'] + ['c'] }}{{ 'ab' * 3 }}{{ [0] * 2 }}",
        # roles that must alternate
        "{{ bos_token }}" + loop + "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate: '"
        " + message.role) }}{% endif %}{% if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}{% else %}"
        "{{ message.content + eos_token }}{% endif %}{% endfor %}",
        # filters on a loop, lazily; macros that see their caller's names; safe
        "{% set ns = namespace(seen=false) %}" + loop[:-2] + "if not ns.seen %}{{ loop.index }}{{ message.role }}"
        "{% if message.role == 'assistant' %}{% set ns.seen = true %}{% endif %}{% endfor %}{% set who = 'one' %}{% macro m(a) %}{{ who }}"
        "{{ a }}{{ varargs|length }}{{ kwargs|tojson }}{% endmacro %}{{ m(1) }}{% set who = 'two' %}{{ m(2, 3, k='v') }}"
        "{% for i in [1, 2] %}{% set who = 'three' %}{{ m(i) }}{{ who }}{% endfor %}{{ who }}{{ ('<a>'|safe) + '<b>' }}{{ '<a>'|safe ~ '<b>' }}"
        "{{ messages[0].content|safe }}{{ messages[-1]['content'] }}",
    ]


def main():
    env = environment()
    sources = own_templates()
    names = [f"own {i}" for i in range(len(sources))]
    if sys.argv[1:]:
        files = sorted(f for folder in sys.argv[1:] for f in pathlib.Path(folder).glob("*.jinja"))
        sources, names = [f.read_text() for f in files], [f.name for f in files]
    contexts = [variables(c) for c in conversations()]
    wants, errors = [], []
    for source in sources:
        row, why, template = [], [], None
        for context in contexts:
            try:
                template = template or env.from_string(source)
                row.append(template.render(**context))
                why.append(None)
            except Exception as e:  # whatever a template does wrong
                row.append(None)
                why.append(f"{type(e).__name__}: {e}")
        wants.append(row)
        errors.append(why)
    out = {"names": names, "sources": sources, "contexts": contexts, "wants": wants, "errors": errors}
    print(json.dumps(out, ensure_ascii=False, indent=0))


if __name__ == "__main__":
    main()
