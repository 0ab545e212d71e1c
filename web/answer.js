/* One turn of the conversation on the page: its text as it comes, tokens in shades of their probability, calls of
 * tools, and the receipt at its end. Every text is a text node. */
import { h, say, say_key, show } from './dom.js';
import { bytes, count, duration, number, percent, rate } from './format.js';
import { t } from './i18n.js';

const MOST_SHADE = 45;

/* The text of a token, with what would not be seen. */
const visible = (text) => JSON.stringify(text).slice(1, -1);

function alternatives(token) {
  const list = token.top.map((a) => `${visible(a.text)} ${percent(Math.exp(a.logprob), 1)}`).join('   ');
  return `${visible(token.text)} ${percent(Math.exp(token.logprob), 1)}${list ? `  ·  ${list}` : ''}`;
}

/* Tokens are read with the pointer, or with arrow keys while their text has the focus. */
function token_reader(text, hint) {
  let at = null;
  const point_to = (span) => {
    if (at) at.classList.remove('at');
    at = span;
    if (span) span.classList.add('at');
    delete hint.dataset.t;
    if (span) say(hint, alternatives(span.token));
    else say_key(hint, 'shade_hint');
  };
  text.addEventListener('pointerover', (e) => e.target.token && point_to(e.target));
  text.addEventListener('pointerleave', () => point_to(null));
  text.addEventListener('blur', () => point_to(null));
  text.addEventListener('keydown', (e) => {
    const steps = { ArrowRight: at ? at.nextElementSibling : text.firstElementChild, ArrowLeft: at && at.previousElementSibling };
    const next = steps[e.key];
    if (!next || !next.token) return;
    e.preventDefault();
    point_to(next);
  });
}

function receipt_facts(usage, seconds) {
  const m = usage.memory || {}, kv = m.kv || {}, out = usage.completion_tokens || 0;
  const cached = usage.prompt_tokens_details ? usage.prompt_tokens_details.cached_tokens : 0;
  const d = usage.completion_tokens_details || {}, drafts = (d.accepted_prediction_tokens || 0) + (d.rejected_prediction_tokens || 0);
  const facts = [['prompt_tokens', count(usage.prompt_tokens)], ['cached_tokens', count(cached)], ['generated_tokens', count(out)]];
  if (drafts) facts.push(['drafts', `${count(d.accepted_prediction_tokens)} / ${count(drafts)}`]);
  if (kv.peak_bytes !== undefined) {
    facts.push(['kv_at_peak', [`${bytes(kv.peak_bytes)} · ${count(kv.peak_blocks)} `, h('span', { t: 'blocks' })]]);
    facts.push(['preempted_times', count(m.preemptions)]);
  }
  if (m.recomputed_tokens) facts.push(['recomputed_tokens', count(m.recomputed_tokens)]);
  for (const part of ['queue', 'prefill', 'decode'])
    if (m[`${part}_ms`] !== undefined) facts.push([`${part}_time`, duration(m[`${part}_ms`] / 1e3)]);
  const decode = m.decode_ms ? m.decode_ms / 1e3 : seconds;
  if (decode > 0 && out > 1) facts.push(['tokens_s', rate((out - 1) / decode)]);
  if (kv.byte_seconds !== undefined) facts.push(['byte_seconds', `${number(kv.byte_seconds / 2 ** 20, 2)} MiB·s`]);
  if (m.prefix && m.prefix.why) facts.push(['prefix_why', h('span', { t: `why_${m.prefix.why}` })]);
  return facts;
}

function call_el(call, on_result) {
  const area = h('textarea', { rows: 2, tLabel: 'tool_result', tHint: 'tool_result' });
  const b = h('button', { type: 'button', class: 'quiet small', t: 'send_result' });
  b.addEventListener('click', () => on_result(call, area.value));
  const args = h('pre', {});
  return { el: h('div', { class: 'call' }, h('strong', { class: 'mono' }, call.name), args, h('div', { class: 'row nowrap' }, area, b)), args };
}

/* role: user, assistant, tool, prompt (a completion's) */
export function turn_el(role, actions) {
  const hint = h('p', { class: 'note hint-of-token', hidden: true }), receipt = h('dl', { class: 'receipt', hidden: true });
  const text = h('div', { class: 'text' }), calls = h('div', {}), error = h('p', { class: 'bad', role: 'alert', hidden: true });
  const reasoning = h('details', { class: 'reasoning', hidden: true }, h('summary', { t: 'reasoning' }), h('div', { class: 'text' }));
  const state = h('span', { class: 'note' });
  const el = h('article', { class: `turn ${role}` }, h('header', {}, h('span', { t: `role_${role}` }), h('span', { class: 'row' }, state, actions)),
    reasoning, text, calls, hint, error, receipt);
  const made = [];
  token_reader(text, hint);

  const add_text = (s) => {
    if (text.lastChild && text.lastChild.nodeType === Node.TEXT_NODE) text.lastChild.appendData(s);
    else text.append(s);
  };
  const add_token = (token) => {
    const span = h('span', { class: 'tok' }, token.text);
    span.token = token;
    span.style.setProperty('--shade', ((1 - Math.exp(token.logprob)) * MOST_SHADE).toFixed(1));
    text.append(span);
    if (hint.hidden) {
      show(hint, true);
      say_key(hint, 'shade_hint');
      text.tabIndex = 0;
      text.setAttribute('role', 'group');
      text.dataset.tLabel = 'answer_tokens';
      text.setAttribute('aria-label', t('answer_tokens'));
    }
  };
  const add_reasoning = (s) => {
    show(reasoning, true);
    reasoning.lastChild.append(s);
  };
  const set_calls = (list, on_result) => {
    list.forEach((call, i) => {
      if (!made[i]) {
        made[i] = call_el(call, on_result);
        calls.append(made[i].el);
      }
      say(made[i].args, call.arguments);
    });
  };
  const set_usage = (usage, seconds) => {
    const facts = receipt_facts(usage, seconds);
    receipt.replaceChildren(...facts.map(([k, v]) => h('div', { tTitle: `about_${k}` }, h('dt', { t: k }), h('dd', {}, v))));
    show(receipt, true);
  };
  const fail = (message) => {
    say(error, message);
    show(error, true);
  };
  return { el, state, text, add_text, add_token, add_reasoning, set_calls, set_usage, fail };
}
