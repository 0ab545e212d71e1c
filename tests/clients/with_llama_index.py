# pip: llama-index-llms-openai-like==0.8.1
"""llama-index: a chat, a completion, a stream, and a tool."""

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

from checks import MODEL, URL, run

llm = OpenAILike(model=MODEL, api_base=URL + "/v1", api_key="none", is_chat_model=True, is_function_calling_model=True,
                 temperature=0, max_tokens=100, max_retries=0)


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}"


def check_a_chat_and_its_stream_say_the_same():
    ask = [ChatMessage(role="user", content="Who are you?")]
    whole = llm.chat(ask).message.content
    assert whole == "".join(c.delta for c in llm.stream_chat(ask)) != ""


def check_a_completion():
    text = OpenAILike(model=MODEL, api_base=URL + "/v1", api_key="none", is_chat_model=False, max_tokens=8)
    assert text.complete("The capital of France is").text


def check_a_tool_is_called():
    tool = FunctionTool.from_defaults(get_weather)
    r = llm.chat_with_tools([tool], user_msg="How is the weather in Paris?", tool_required=True, allow_parallel_tool_calls=False)
    calls = llm.get_tool_calls_from_response(r)
    assert calls[0].tool_name == "get_weather" and "city" in calls[0].tool_kwargs


run(globals())
