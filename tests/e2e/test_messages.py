"""/v1/messages as the anthropic package sees it: its types, and the accumulator of its streams."""

import json

import anthropic
import pytest

ASK = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture(scope="module")
def client(daemon):
    return anthropic.Anthropic(base_url=daemon.url, api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def model(daemon):
    return daemon.client.models.list().data[0].id


@pytest.fixture(scope="module")
def create(client, model):
    def create(**more):
        args = dict(model=model, messages=ASK, max_tokens=16, extra_body={"temperature": 0})
        return client.messages.create(**{**args, **more})
    return create


def test_a_message_says_what_a_chat_says(daemon, model, create):
    chat = daemon.client.chat.completions.create(model=model, max_tokens=16, temperature=0, messages=[
        {"role": "system", "content": "You are a pirate."}, *ASK])
    m = create(system="You are a pirate.")
    assert m.content[0].text == chat.choices[0].message.content
    assert m.id.startswith("msg_") and m.type == "message" and m.role == "assistant" and m.model == model
    cut = chat.choices[0].finish_reason == "length"
    assert m.stop_reason == ("max_tokens" if cut else "end_turn") and m.stop_sequence is None
    assert (m.usage.input_tokens, m.usage.output_tokens) == (chat.usage.prompt_tokens, chat.usage.completion_tokens)
    assert m._request_id


def test_blocks_and_strings_are_the_same_prompt(create):
    blocks = create(system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
                    messages=[{"role": "user", "content": [{"type": "text", "text": "Who are you?"}]}])
    text = create(system="Be brief.")
    assert blocks.content[0].text == text.content[0].text and blocks.usage.input_tokens == text.usage.input_tokens


def test_the_accumulator_takes_every_event(client, model, create):
    with client.messages.stream(model=model, messages=ASK, max_tokens=200,
                                extra_body={"temperature": 0}) as s:
        text = "".join(s.text_stream)
        final = s.get_final_message()
    whole = create(max_tokens=200)
    assert text == final.content[0].text == whole.content[0].text
    assert final.stop_reason == whole.stop_reason == "end_turn"
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.input_tokens == whole.usage.input_tokens


def test_events_come_in_anthropics_order(create):
    kinds = [e.type for e in create(stream=True, max_tokens=3)]
    # the package passes over the event "ping"
    assert kinds == ["message_start", "content_block_start", *["content_block_delta"] * 3, "content_block_stop",
                     "message_delta", "message_stop"]


def test_a_stop_sequence_is_named(create):
    text = create(max_tokens=40).content[0].text
    stop = text.split()[2]
    m = create(max_tokens=40, stop_sequences=["@@never@@", stop])
    assert m.stop_reason == "stop_sequence" and m.stop_sequence == stop
    assert m.content[0].text == text[:text.index(stop)]


@pytest.mark.parametrize("more", [{}, {"system": "You are a pirate."}, {"messages": [
    *ASK, {"role": "assistant", "content": "A pirate."}, {"role": "user", "content": "Prove it."}]}])
def test_a_count_is_that_of_the_usage(client, model, create, more):
    count = client.messages.count_tokens(model=model, **{"messages": ASK, **more})
    m = create(**more)
    assert count.input_tokens == m.usage.input_tokens
    assert create(**more).usage.input_tokens == count.input_tokens  # the second is cached, and counts the same


def test_an_answer_may_fill_the_context(daemon, create):
    long = [{"role": "user", "content": "the sea " * 495}]  # of a context of 1,024
    m = create(messages=long, max_tokens=4000, extra_body={"temperature": 0, "ignore_eos": True})
    assert m.stop_reason == "model_context_window_exceeded"
    assert m.usage.input_tokens + m.usage.output_tokens == 1024


def test_an_answer_that_is_begun_is_continued(create):
    begun = [*ASK, {"role": "assistant", "content": "My name is"}]
    m = create(messages=begun)
    assert m.content[0].text and not m.content[0].text.startswith("My name is")


def test_errors_are_those_of_the_package(client, create):
    with pytest.raises(anthropic.NotFoundError) as e:
        create(model="none")
    assert e.value.body["error"]["type"] == "not_found_error" and e.value.body["request_id"]
    with pytest.raises(anthropic.BadRequestError) as e:
        create(messages=[{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "x"}}]}])
    assert e.value.body["error"]["type"] == "invalid_request_error"
    assert "messages[0].content[0]" in str(e.value)


def test_thinking_of_earlier_turns_is_taken_back(create):
    m = create(messages=[*ASK, {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "any"}, {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "A pirate."}]}, {"role": "user", "content": "Prove it."}])
    assert m.content[0].type == "text"


def test_a_format_is_kept(create):
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"],
              "additionalProperties": False}
    m = create(output_config={"format": {"type": "json_schema", "schema": schema}}, max_tokens=60)
    assert isinstance(json.loads(m.content[0].text)["age"], int)
