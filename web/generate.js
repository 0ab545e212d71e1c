/* One streamed answer: sends the request, and gives what comes to the sink as it comes. */
import { stream } from './net.js';

/* A call of a tool comes in pieces: name first, then its arguments. */
function add_calls(calls, pieces) {
  for (const p of pieces) {
    const i = p.index ?? calls.length;
    calls[i] ||= { id: '', name: '', arguments: '' };
    if (p.id) calls[i].id = p.id;
    if (p.function && p.function.name) calls[i].name += p.function.name;
    if (p.function && p.function.arguments) calls[i].arguments += p.function.arguments;
  }
}

const alternatives_of = (top) => (top || []).map((a) => ({ text: a.token, logprob: a.logprob }));

function chat_tokens(lp) {
  return lp.content.map((c) => ({ text: c.token, logprob: c.logprob, top: alternatives_of(c.top_logprobs) }));
}

function completion_tokens(lp) {
  return lp.tokens.map((text, i) => ({ text, logprob: lp.token_logprobs[i] ?? 0,
    top: Object.entries((lp.top_logprobs || [])[i] || {}).map(([token, logprob]) => ({ text: token, logprob })) }));
}

/* Tokens are shown where together they are the text: of a character in several tokens, or with the marks of a call, they are not. */
function give_text(text, tokens, sink) {
  if (tokens && tokens.map((x) => x.text).join('') === text) tokens.forEach(sink.token);
  else if (text) sink.text(text);
}

/* sink: text(s), token({text, logprob, top}), reasoning(s), calls(list), usage(u), finish(reason).
 * Resolves to {text, calls}, also where it was stopped; rejects with what the server said. */
export async function generate(path, body, signal, sink) {
  const whole = { text: '', calls: [], finish: null };
  let failed = null;
  const on_choice = (c) => {
    const delta = c.delta || { content: c.text }, lp = c.logprobs;
    const reasoning = delta.reasoning_content ?? delta.reasoning;
    if (reasoning) sink.reasoning(reasoning);
    if (delta.content) {
      whole.text += delta.content;
      give_text(delta.content, lp && (lp.content ? chat_tokens(lp) : lp.tokens && completion_tokens(lp)), sink);
    }
    if (delta.tool_calls) {
      add_calls(whole.calls, delta.tool_calls);
      sink.calls(whole.calls);
    }
    if (c.finish_reason) {
      whole.finish = c.finish_reason;
      sink.finish(c.finish_reason);
    }
  };
  await stream(path, {
    body, signal,
    on_event: ({ name, data }) => {
      if (name === 'beat' || data === '[DONE]') return;
      const event = JSON.parse(data);
      if (event.error) failed = event.error.message;
      for (const c of event.choices || []) on_choice(c);
      if (event.usage && event.usage.memory) sink.usage(event.usage);
    },
  });
  if (failed) throw new Error(failed);
  return whole;
}
