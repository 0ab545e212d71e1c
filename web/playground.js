/* The playground: a chat or a completion with the served model, streamed, with what each answer took. */
import { turn_el } from './answer.js';
import { copy_button, h, say, say_key, show } from './dom.js';
import { count } from './format.js';
import { generate } from './generate.js';
import { t } from './i18n.js';
import { key, post } from './net.js';
import { Mistake, settings_form } from './settings.js';
import { curl_of, python_of } from './snippets.js';

const PREVIEW_MS = 400;
const PATHS = { chat: 'v1/chat/completions', completion: 'v1/completions' };

function mode_switch(on_change) {
  const radio = (m) => h('input', { type: 'radio', name: 'play-mode', value: m, checked: m === 'chat' });
  const el = h('div', { class: 'segments', role: 'radiogroup', tLabel: 'mode' },
    ['chat', 'completion'].map((m) => h('label', {}, radio(m), h('span', { t: `mode_${m}` }))));
  el.addEventListener('change', (e) => on_change(e.target.value));
  return el;
}

function messages_of(turns, system, draft) {
  const list = system.trim() ? [{ role: 'system', content: system }] : [];
  for (const turn of turns) {
    if (turn.role === 'user') list.push({ role: 'user', content: turn.text });
    else if (turn.role === 'tool') list.push({ role: 'tool', tool_call_id: turn.call_id, content: turn.text });
    else if (turn.role === 'assistant' && turn.calls.length) list.push({ role: 'assistant', content: turn.text || null,
      tool_calls: turn.calls.map((c) => ({ id: c.id, type: 'function', function: { name: c.name, arguments: c.arguments } })) });
    else if (turn.role === 'assistant') list.push({ role: 'assistant', content: turn.text });
  }
  if (draft) list.push({ role: 'user', content: draft });
  return list;
}

/* The prompt as the chat template makes it, and how many tokens it has. */
function preview_pane(request_of) {
  const facts = h('p', { class: 'note' }), text = h('pre', { tabindex: '0', class: 'code' });
  const el = h('details', { class: 'preview' }, h('summary', { t: 'preview' }), facts, text);
  let timer = 0, round = 0;
  const now = async () => {
    const own = ++round, r = request_of();
    if (!el.open) return;
    if (r.messages ? !r.messages.length : !r.prompt) {
      say(text, '');
      say(facts, t('prompt_has', { n: 0 }));
      return;
    }
    try {
      const answer = r.messages ? await post('apply-template', { ...r, tokens: true }) : await post('tokenize', r);
      if (own !== round) return;
      say(text, r.messages ? answer.prompt : r.prompt);
      say(facts, t('prompt_has', { n: count(answer.tokens.length) }));
    } catch (e) {
      if (own === round) say(facts, e.message);
    }
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(now, PREVIEW_MS);
  };
  el.addEventListener('toggle', now);
  return { el, soon };
}

function small(label, run) {
  const b = h('button', { type: 'button', class: 'quiet small', t: label });
  b.addEventListener('click', run);
  return b;
}

/* The conversation: turns {role, text, calls, call_id, ui}, the draft, and the answer that is being written. */
class Playground {
  constructor() {
    this.mode = 'chat';
    this.turns = [];
    this.control = null; /* of the answer that is being written */
    this.settings = settings_form();
    this.preview = preview_pane(() => this.request());
    this.log = h('div', { class: 'turns', role: 'log', tLabel: 'conversation', tabindex: '0' });
    this.hint = h('p', { class: 'note empty', t: 'play_hint' });
    this.mistake = h('p', { class: 'bad reserve', role: 'alert' });
    this.draft = h('textarea', { id: 'draft', rows: 3, tLabel: 'your_message', tHint: 'your_message' });
    this.send = h('button', { type: 'submit', class: 'primary', t: 'send' });
    this.stop = h('button', { type: 'button', class: 'quiet', t: 'stop', hidden: true });
    this.clear = h('button', { type: 'button', class: 'quiet', t: 'clear_talk' });
    this.log.append(this.hint);
    this.build();
    this.listen();
  }

  build() {
    const copies = [copy_button('copy_curl', () => this.snippet(curl_of)), copy_button('copy_python', () => this.snippet(python_of))];
    const buttons = h('div', { class: 'row' }, h('div', { class: 'row' }, copies), h('div', { class: 'row' }, this.clear, this.stop, this.send));
    this.form = h('form', { class: 'composer', tLabel: 'your_message' }, this.mistake, this.draft, buttons);
    const mode = mode_switch((m) => {
      this.mode = m;
      this.settings.set_mode(m === 'chat');
      this.start_anew();
    });
    this.el = h('div', { class: 'view play' },
      h('section', { class: 'talk', tLabel: 'playground' }, h('div', { class: 'row' }, mode), this.log, this.preview.el, this.form), this.settings.el);
  }

  listen() {
    this.form.addEventListener('submit', (e) => {
      e.preventDefault();
      this.submit();
    });
    this.draft.addEventListener('keydown', (e) => {
      if (e.key !== 'Enter' || e.shiftKey || e.isComposing) return;
      e.preventDefault();
      this.submit();
    });
    this.draft.addEventListener('input', this.preview.soon);
    this.settings.el.addEventListener('input', this.preview.soon);
    this.stop.addEventListener('click', () => this.abort());
    this.clear.addEventListener('click', () => this.start_anew());
    this.el.addEventListener('keydown', (e) => {
      if (e.key === 'Escape') this.abort();
    });
  }

  abort() {
    if (this.control) this.control.abort();
  }

  messages(draft) {
    return messages_of(this.turns, this.settings.system.value, draft);
  }

  /* For the preview. */
  request() {
    const model = this.settings.model.value;
    if (this.mode === 'completion') return { model, prompt: this.draft.value };
    const tools = this.settings.tools();
    return { model, messages: this.messages(this.draft.value), ...(tools ? { tools } : {}) };
  }

  /* The body of a request whose newest text is this one; throws a Mistake of the form. */
  body(text) {
    const body = this.settings.read(this.mode === 'chat');
    if (this.mode === 'chat') body.messages = this.messages(text);
    else body.prompt = text;
    return { ...body, stream: true, stream_options: { include_usage: true } };
  }

  try_body(text) {
    say(this.mistake, '');
    try {
      return this.body(text);
    } catch (e) {
      if (!(e instanceof Mistake)) throw e;
      say(this.mistake, e.message);
      return null;
    }
  }

  /* What would be sent now; with an empty draft, what was sent last. */
  snippet(of) {
    const last = [...this.turns].reverse().find((turn) => turn.role === 'user' || turn.role === 'prompt');
    try {
      const body = this.body(this.draft.value || (this.mode === 'completion' && last ? last.text : ''));
      while (!this.draft.value && body.messages && body.messages.length && body.messages.at(-1).role === 'assistant') body.messages.pop();
      return of(location.origin, PATHS[this.mode], body, Boolean(key()));
    } catch (e) {
      return `# ${e.message}\n`;
    }
  }

  add(role, text, actions) {
    const ui = turn_el(role, actions);
    if (text) ui.add_text(text);
    const turn = { role, text: text || '', calls: [], ui };
    this.turns.push(turn);
    this.hint.remove();
    this.log.append(ui.el);
    return turn;
  }

  drop_from(turn) {
    const at = this.turns.indexOf(turn);
    if (at < 0) return;
    for (const gone of this.turns.splice(at)) gone.ui.el.remove();
  }

  start_anew() {
    this.abort();
    this.drop_from(this.turns[0]);
    this.log.append(this.hint);
    say(this.mistake, '');
    this.preview.soon();
  }

  submit() {
    const text = this.draft.value;
    if (!text.trim() || this.control) return;
    const body = this.try_body(text);
    if (!body) return;
    const turn = this.add(this.mode === 'chat' ? 'user' : 'prompt', text, small('edit', () => {
      if (this.control) return;
      this.drop_from(turn);
      this.draft.value = turn.text;
      this.draft.focus();
    }));
    this.draft.value = '';
    this.answer(body);
  }

  busy(control) {
    this.control = control;
    show(this.stop, control);
    this.send.disabled = this.clear.disabled = Boolean(control);
  }

  sink(turn) {
    const on_result = (call, text) => {
      if (this.control) return;
      this.add('tool', text).call_id = call.id;
      const body = this.try_body('');
      if (body) this.answer(body);
    };
    return {
      text: (s) => { turn.text += s; turn.ui.add_text(s); },
      token: (token) => { turn.text += token.text; turn.ui.add_token(token); },
      reasoning: turn.ui.add_reasoning,
      calls: (list) => { turn.calls = list; turn.ui.set_calls(list, on_result); },
      usage: (u) => turn.ui.set_usage(u, (performance.now() - turn.began) / 1000),
      finish: (reason) => say_key(turn.ui.state, `finish_${reason}`),
    };
  }

  /* The same question again, with the parameters of now. */
  regenerate(turn, prompt) {
    if (this.control) return;
    this.drop_from(turn);
    const body = this.try_body(prompt || '');
    if (body) this.answer(body);
  }

  /* Streams an answer to body into a new turn. */
  async answer(body) {
    const control = new AbortController();
    const again = small('regenerate', () => this.regenerate(turn, body.prompt));
    const turn = this.add('assistant', '', [again, copy_button('copy_text', () => turn.text, 'quiet small')]);
    turn.began = performance.now();
    this.busy(control);
    say_key(turn.ui.state, 'writing');
    turn.ui.el.scrollIntoView({ block: 'nearest' });
    try {
      await generate(PATHS[this.mode], { ...body, receipt: true }, control.signal, this.sink(turn));
    } catch (e) {
      say_key(turn.ui.state, control.signal.aborted ? 'stopped' : 'phase_failed');
      if (!control.signal.aborted) turn.ui.fail(e.message);
    }
    if (this.control === control) this.busy(null);
    this.preview.soon();
  }
}

export function playground_view() {
  const p = new Playground();
  return { el: p.el, update: (feed) => p.settings.set_models(feed.models) };
}
