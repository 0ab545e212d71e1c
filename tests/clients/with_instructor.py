# pip: instructor==1.17.0
"""instructor: a typed answer by a tool and by JSON schema, with its own retries."""

import instructor
import openai
from pydantic import BaseModel, Field

from checks import MODEL, URL, run


class Person(BaseModel):
    name: str = Field(max_length=40)
    age: int = Field(ge=0, le=120)


def ask(mode):
    client = instructor.from_openai(openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0), mode=mode)
    return client.chat.completions.create(model=MODEL, response_model=Person, max_tokens=200, temperature=0, max_retries=1,
                                          messages=[{"role": "user", "content": "Ada is 36 years old."}])


def check_a_typed_answer_by_a_tool():
    assert isinstance(ask(instructor.Mode.TOOLS), Person)


def check_a_typed_answer_by_json_schema():
    assert isinstance(ask(instructor.Mode.JSON_SCHEMA), Person)


run(globals())
