# pip: openai==3.54.0
"""The openai package: chat, tools in a loop, parse, responses, their streams."""

import json

import openai
from pydantic import BaseModel

from checks import MODEL, URL, WEATHER, run

client = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0)
ASK = [{"role": "user", "content": "How is the weather in Paris?"}]
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city",
                                         "parameters": WEATHER, "strict": True}}
RESPONSES_TOOL = {"type": "function", **TOOL["function"]}


class Person(BaseModel):
    name: str
    age: int


def check_a_chat_and_its_stream_say_the_same():
    args = dict(model=MODEL, messages=ASK, max_tokens=20, temperature=0)
    whole = client.chat.completions.create(**args)
    parts = [c.choices[0].delta.content or "" for c in client.chat.completions.create(stream=True, **args) if c.choices]
    assert whole.choices[0].message.content == "".join(parts) != ""


def check_a_tool_is_called_and_its_result_answered():
    # one call: a model this small would go on calling to the end of its tokens
    args = dict(model=MODEL, tools=[TOOL], max_tokens=100, temperature=0, parallel_tool_calls=False)
    first = client.chat.completions.create(messages=ASK, tool_choice="required", **args)
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    (call,) = message.tool_calls[:1]
    assert call.function.name == "get_weather" and set(json.loads(call.function.arguments)) == {"city", "unit"}
    results = [{"role": "tool", "tool_call_id": c.id, "content": "Sunny, 20 degrees"} for c in message.tool_calls]
    second = client.chat.completions.create(messages=[*ASK, message, *results], tool_choice="none", **args)
    assert second.choices[0].message.content and second.choices[0].finish_reason in ("stop", "length")


def check_the_accumulator_of_a_stream_with_tools():
    with client.chat.completions.stream(model=MODEL, messages=ASK, tools=[TOOL], max_tokens=100, temperature=0,
                                        tool_choice={"type": "function", "function": {"name": "get_weather"}}) as s:
        for _ in s:
            pass
        message = s.get_final_completion().choices[0].message
    assert message.tool_calls[0].function.parsed_arguments["unit"] in ("C", "F")


def check_parse_gives_an_object():
    r = client.chat.completions.parse(model=MODEL, messages=[{"role": "user", "content": "Invent a person."}],
                                      response_format=Person, max_tokens=200, temperature=0)
    assert isinstance(r.choices[0].message.parsed, Person)


def check_responses_call_a_tool_and_take_its_output():
    args = dict(model=MODEL, tools=[RESPONSES_TOOL], max_output_tokens=100, temperature=0, store=False,
                parallel_tool_calls=False)
    first = client.responses.create(input=ASK, tool_choice="required", **args)
    calls = [item for item in first.output if item.type == "function_call"]
    assert calls and calls[0].name == "get_weather" and json.loads(calls[0].arguments)
    outputs = [{"type": "function_call_output", "call_id": c.call_id, "output": "Sunny"} for c in calls]
    second = client.responses.create(input=[*ASK, *first.output, *outputs], tool_choice="none", **args)
    assert second.output_text


def check_the_accumulator_of_responses_with_tools():
    with client.responses.stream(model=MODEL, input=ASK, tools=[RESPONSES_TOOL], tool_choice="required",
                                 max_output_tokens=100, temperature=0, parallel_tool_calls=False) as s:
        kinds = [e.type for e in s]
        final = s.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    assert json.loads([i for i in final.output if i.type == "function_call"][0].arguments)


def check_responses_parse_gives_an_object():
    r = client.responses.parse(model=MODEL, input="Invent a person.", text_format=Person, max_output_tokens=200,
                               temperature=0)
    assert isinstance(r.output_parsed, Person)


run(globals())
