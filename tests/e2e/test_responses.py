"""/v1/responses as the openai package sees it: its types, and the accumulator of its streams."""

import openai
import pydantic
import pytest

ASK = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture(scope="module")
def model(daemon):
    return daemon.client.models.list().data[0].id


@pytest.fixture(scope="module")
def create(daemon, model):
    def create(**more):
        args = dict(model=model, input=ASK, max_output_tokens=16, temperature=0)
        return daemon.client.responses.create(**{**args, **more})
    return create


def test_a_response_says_what_a_chat_says(daemon, model, create):
    chat = daemon.client.chat.completions.create(model=model, max_tokens=16, temperature=0, messages=[
        {"role": "system", "content": "You are a pirate."}, *ASK])
    r = create(instructions="You are a pirate.")
    assert r.output_text == chat.choices[0].message.content
    assert r.id.startswith("resp_") and r.object == "response" and r.model == model and r.error is None
    assert r.instructions == "You are a pirate." and r.max_output_tokens == 16 and r.temperature == 0
    assert r.parallel_tool_calls is True and r.tool_choice == "auto" and r.tools == []
    cut = chat.choices[0].finish_reason == "length"
    assert r.status == ("incomplete" if cut else "completed")
    assert (r.incomplete_details and r.incomplete_details.reason) == ("max_output_tokens" if cut else None)
    u = r.usage
    assert (u.input_tokens, u.output_tokens) == (chat.usage.prompt_tokens, chat.usage.completion_tokens)
    assert u.total_tokens == u.input_tokens + u.output_tokens
    assert u.output_tokens_details.reasoning_tokens == 0 and u.input_tokens_details.cached_tokens >= 0
    (item,) = r.output
    assert item.type == "message" and item.role == "assistant" and item.id.startswith("msg_")
    assert item.content[0].type == "output_text" and item.content[0].annotations == []


def test_every_form_of_the_same_input_is_the_same_prompt(create):
    forms = ["Who are you?", ASK, [{"type": "message", **ASK[0]}],
             [{"role": "user", "content": [{"type": "input_text", "text": "Who are you?"}]}]]
    counts = {create(input=form).usage.input_tokens for form in forms}
    assert len(counts) == 1


def test_an_answer_goes_back_as_it_came(create):
    first = create()
    again = create(input=[*ASK, *[item.to_dict() for item in first.output],
                          {"role": "user", "content": "And who am I?"}])
    assert again.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens


def test_the_accumulator_takes_every_event(daemon, model, create):
    with daemon.client.responses.stream(model=model, input=ASK, max_output_tokens=200, temperature=0) as s:
        events = list(s)
        final = s.get_final_response()
    assert [e.sequence_number for e in events] == list(range(len(events)))
    kinds = [e.type for e in events]
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]
    assert kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done",
                          "response.completed"]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    whole = create(max_output_tokens=200)
    assert whole.status == "completed"
    assert final.output_text == whole.output_text == "".join(e.delta for e in events[4:-4])
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.id == events[0].response.id


def test_a_cut_stream_ends_incomplete(create):
    events = list(create(stream=True, max_output_tokens=3))
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.incomplete_details.reason == "max_output_tokens"
    assert events[-1].response.usage.output_tokens == 3


def test_logprobs_come_with_the_text(create):
    args = dict(include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=4)
    whole = create(**args).output[0].content[0]
    assert len(whole.logprobs) == 4 and all(len(p.top_logprobs) == 2 for p in whole.logprobs)
    deltas = [e for e in create(stream=True, **args) if e.type == "response.output_text.delta"]
    assert [p.token for e in deltas for p in e.logprobs] == [p.token for p in whole.logprobs]
    assert "".join(p.token for p in whole.logprobs) == whole.text


def test_a_count_is_that_of_the_usage(daemon, model, create):
    count = daemon.client.responses.input_tokens.count(model=model, input=ASK, instructions="Be brief.")
    assert count.input_tokens == create(instructions="Be brief.").usage.input_tokens


def test_what_would_need_a_store_is_refused_by_name(create):
    for name, value in (("previous_response_id", "resp_1"), ("conversation", "conv_1"), ("background", True)):
        with pytest.raises(openai.BadRequestError) as e:
            create(**{name: value})
        assert e.value.param == name and e.value.code == "unsupported_parameter"
    assert create(store=True, metadata={"a": "b"}).metadata == {"a": "b"}


def test_tools_that_only_a_provider_can_run_are_passed_over(create):
    r = create(tools=[{"type": "web_search"}])
    assert r.output_text == create().output_text and r.tools[0].type == "web_search"


def test_a_format_is_kept(daemon, model):
    class Person(pydantic.BaseModel):
        name: str = pydantic.Field(max_length=20)
        age: int

    args = dict(model=model, input="Invent a person.", text_format=Person, max_output_tokens=100, temperature=0)
    assert isinstance(daemon.client.responses.parse(**args).output_parsed, Person)
    with daemon.client.responses.stream(**args) as s:
        assert isinstance(s.get_final_response().output_parsed, Person)
