# pip: pydantic-ai-slim[openai]==2.68.0
"""pydantic-ai: an agent that answers with text, and with a type by a tool and by JSON schema."""

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from checks import MODEL, URL, run

provider = OpenAIProvider(base_url=URL + "/v1", api_key="none")
COLD = {"temperature": 0.0, "max_tokens": 200, "parallel_tool_calls": False}


class Person(BaseModel):
    name: str
    age: int


def check_an_agent_answers_with_text():
    r = Agent(OpenAIChatModel(MODEL, provider=provider), model_settings=COLD).run_sync("Who are you?")
    assert r.output and r.usage.output_tokens > 0


def check_an_agent_answers_with_a_type_by_a_tool():
    agent = Agent(OpenAIChatModel(MODEL, provider=provider), output_type=Person, model_settings=COLD, retries=1)
    assert isinstance(agent.run_sync("Ada is 36 years old.").output, Person)


def check_an_agent_answers_with_a_type_by_schema():
    agent = Agent(OpenAIChatModel(MODEL, provider=provider), output_type=NativeOutput(Person), model_settings=COLD)
    assert isinstance(agent.run_sync("Ada is 36 years old.").output, Person)


def check_the_responses_api():
    r = Agent(OpenAIResponsesModel(MODEL, provider=provider), model_settings=COLD).run_sync("Who are you?")
    assert r.output


run(globals())
