# pip: litellm==1.110.2
"""litellm: one function for both APIs, whole and as streams."""

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it looks for prices on the network
import litellm  # noqa: E402

from checks import MODEL, URL, WEATHER, run  # noqa: E402

litellm.suppress_debug_info = True

ASK = [{"role": "user", "content": "How is the weather in Paris?"}]
OPENAI = dict(model="openai/" + MODEL, api_base=URL + "/v1", api_key="none", max_tokens=100, num_retries=0)
ANTHROPIC = dict(model="anthropic/" + MODEL, api_base=URL, api_key="none", max_tokens=100, num_retries=0)
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": WEATHER}}


def both(args):
    whole = litellm.completion(messages=ASK, temperature=0, **args)
    parts = [c.choices[0].delta.content or "" for c in litellm.completion(messages=ASK, temperature=0, stream=True, **args)]
    assert whole.choices[0].message.content == "".join(parts) != ""


def check_openai_whole_and_as_a_stream():
    both(OPENAI)


def check_anthropic_whole_and_as_a_stream():
    both(ANTHROPIC)


def tool(args):
    r = litellm.completion(messages=ASK, tools=[TOOL], tool_choice="required", temperature=0,
                           parallel_tool_calls=False, **args)
    call = r.choices[0].message.tool_calls[0].function
    assert call.name == "get_weather" and set(json.loads(call.arguments)) == {"city", "unit"}


def check_a_tool_by_openai():
    tool(OPENAI)


def check_a_tool_by_anthropic():
    tool(ANTHROPIC)


run(globals())
