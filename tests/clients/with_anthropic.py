# pip: anthropic==2.14.0
"""The anthropic package: messages, streams, tools in a loop, counts."""

import anthropic

from checks import MODEL, URL, WEATHER, run

client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
ASK = [{"role": "user", "content": "How is the weather in Paris?"}]
TOOL = {"name": "get_weather", "description": "The weather of a city", "input_schema": WEATHER}
COLD = {"temperature": 0}


def check_a_message_and_its_stream_say_the_same():
    args = dict(model=MODEL, messages=ASK, max_tokens=20, system="Be brief.", extra_body=COLD)
    whole = client.messages.create(**args)
    with client.messages.stream(**args) as s:
        text = "".join(s.text_stream)
    assert whole.content[0].text == text != ""


def check_a_tool_is_used_and_its_result_answered():
    args = dict(model=MODEL, tools=[TOOL], max_tokens=100, extra_body=COLD)
    first = client.messages.create(messages=ASK, **args, tool_choice={
        "type": "any", "disable_parallel_tool_use": True})  # a model this small would go on calling
    uses = [b for b in first.content if b.type == "tool_use"]
    assert first.stop_reason == "tool_use" and uses[0].name == "get_weather" and set(uses[0].input) == {"city", "unit"}
    results = [{"type": "tool_result", "tool_use_id": b.id, "content": "Sunny"} for b in uses]
    second = client.messages.create(tool_choice={"type": "none"}, messages=[
        *ASK, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}], **args)
    assert second.content[0].type == "text"


def check_the_accumulator_of_a_stream_with_tools():
    with client.messages.stream(model=MODEL, messages=ASK, tools=[TOOL], max_tokens=100, extra_body=COLD,
                                tool_choice={"type": "tool", "name": "get_weather"}) as s:
        for _ in s:
            pass
        final = s.get_final_message()
    assert [b.input["unit"] in ("C", "F") for b in final.content if b.type == "tool_use"][0]


def check_a_count_with_tools_is_that_of_the_usage():
    args = dict(model=MODEL, messages=ASK, tools=[TOOL], system="Be brief.")
    count = client.messages.count_tokens(**args)
    assert count.input_tokens == client.messages.create(max_tokens=1, **args).usage.input_tokens > 50


run(globals())
