/* The three questions that people come with, answered first: how much the KV cache holds, which request holds most,
 * and whether one more of so many tokens would fit. */
import { age_of, kv_bytes, one_more } from './account.js';
import { meter } from './chart.js';
import { h, say } from './dom.js';
import { feed, server_now } from './feed.js';
import { bytes, count, duration, percent, word } from './format.js';
import { t } from './i18n.js';

const DEFAULT_TOKENS = 8000;

function card(cls, title_id, title) {
  const big = h('p', { class: 'big' }), text = h('p', { class: 'note two' }), bar = meter(cls);
  const el = h('section', { class: `card answer ${cls}`, 'aria-labelledby': title_id }, h('h2', { id: title_id }, title), big, bar.el, text);
  return { el, big, text, bar };
}

function kv_card() {
  const c = card('of-kv', 'a-kv', h('span', { t: 'kv_in_use' }));
  c.update = (a) => {
    const kv = kv_bytes(a.memory.kv || {});
    c.big.replaceChildren(h('strong', {}, bytes(kv.used)), ` ${t('of_all', { all: bytes(kv.all) })}`);
    c.bar.set(kv.used / kv.all);
    say(c.text, kv.all ? t('kv_says', { share: percent(kv.used / kv.all, 1), cached: bytes(kv.cached), free: bytes(kv.free) }) : t('no_blocks'));
  };
  return c;
}

function largest_card(on_pick) {
  const c = card('of-largest', 'a-largest', h('span', { t: 'largest_request' }));
  let id = null;
  c.el.addEventListener('pointerenter', () => on_pick(id));
  c.el.addEventListener('pointerleave', () => on_pick(null));
  c.update = (a) => {
    const s = a.memory.sequences.reduce((best, x) => (!best || x.bytes > best.bytes ? x : best), null);
    const all = kv_bytes(a.memory.kv || {}).all;
    id = s && s.bytes ? s.id : null;
    if (id === null) {
      c.big.replaceChildren(h('strong', {}, t('none')));
      c.bar.set(0);
      say(c.text, t('no_requests'));
      return;
    }
    c.big.replaceChildren(h('strong', {}, bytes(s.bytes)), ` ${t('request_n', { id: s.id })}`);
    c.bar.set(s.bytes / all);
    const age = duration(age_of(s, server_now()));
    say(c.text, t('largest_says', { share: percent(s.bytes / all), tokens: count(s.tokens), state: word('state', s.state), age }));
  };
  return c;
}

const VERDICTS = { fits: ['yes', 'good'], wait_memory: ['not_now', 'warn'], wait_margin: ['not_now', 'warn'], wait_queue: ['not_now', 'warn'],
  wait_place: ['not_now', 'warn'], never: ['no', 'bad'], too_long: ['no', 'bad'], none: ['none', ''] };

function fit_card() {
  const input = h('input', { type: 'number', id: 'fit-tokens', min: 1, max: 1e8, step: 1, inputmode: 'numeric', value: DEFAULT_TOKENS,
    'aria-describedby': 'fit-says' });
  const label = h('label', { for: 'fit-tokens', t: 'one_more_of' }), after = h('span', { t: 'tokens_more' });
  const c = card('of-fit', 'a-fit', h('span', { class: 'ask' }, label, input, after));
  c.text.id = 'fit-says';
  c.big.setAttribute('aria-live', 'polite');
  let last = null;
  input.addEventListener('input', () => last && c.update(last));
  c.update = (a) => {
    last = a;
    const n = Math.floor(Number(input.value));
    if (!(n > 0)) return;
    const model = feed.models[0], r = one_more(a, n, { max_model_len: model ? model.max_model_len : null, places: feed.places });
    const [word_key, tone] = VERDICTS[r.verdict];
    const vars = { need: bytes(r.need), free: bytes(r.free), cached: bytes(r.cached), all: bytes(r.all), missing: bytes(r.need - r.free),
      most: model ? count(model.max_model_len) : '', places: feed.places };
    const strong = h('strong', { class: tone }, t(word_key));
    if (c.big.textContent !== strong.textContent || c.big.firstChild.className !== tone) c.big.replaceChildren(strong);
    c.bar.set(r.need / r.all);
    say(c.text, t(`fit_${r.verdict}`, vars));
  };
  return c;
}

export function answers({ on_pick }) {
  const cards = [kv_card(), largest_card(on_pick), fit_card()];
  const el = h('div', { class: 'answers' }, cards.map((c) => c.el));
  return { el, update: (a) => cards.forEach((c) => c.update(a)) };
}
