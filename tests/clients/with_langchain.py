# pip: langchain-openai==1.7.4
"""langchain-openai: a chat, a stream, bound tools, structured output, and the responses API."""

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from checks import MODEL, URL, run


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}"


class Person(BaseModel):
    """A person"""
    name: str
    age: int


def model(**more):
    return ChatOpenAI(model=MODEL, base_url=URL + "/v1", api_key="none", temperature=0, max_tokens=100, max_retries=0,
                      **more)


def check_a_chat_and_its_stream_say_the_same():
    whole = model().invoke("Who are you?")
    assert whole.content == "".join(c.content for c in model().stream("Who are you?")) != ""
    assert whole.usage_metadata["output_tokens"] > 0


def check_a_bound_tool_is_called_and_its_result_answered():
    bound = model().bind_tools([get_weather], tool_choice="required", parallel_tool_calls=False)
    ask = HumanMessage("How is the weather in Paris?")
    first = bound.invoke([ask])
    assert first.tool_calls[0]["name"] == "get_weather" and not first.invalid_tool_calls
    results = [ToolMessage(get_weather.invoke(c["args"]), tool_call_id=c["id"]) for c in first.tool_calls]
    assert model().bind_tools([get_weather], tool_choice="none").invoke([ask, first, *results]).content


def check_structured_output_by_schema_and_by_tool():
    for method in ("json_schema", "function_calling"):
        person = model().with_structured_output(Person, method=method).invoke("Invent a person.")
        assert isinstance(person, Person), method


def check_the_responses_api():
    r = model(use_responses_api=True).invoke("Who are you?")
    assert r.text
    assert "".join(c.text for c in model(use_responses_api=True).stream("Who are you?")) == r.text


run(globals())
