/* The three questions that people come with, answered first: how much the KV cache holds, which request holds most,
 * and whether one more of so many tokens would fit. */
import { age_of, kv_bytes, ledger_of, one_more } from './account.js';
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
    const kv = kv_bytes(a.memory.kv || {}), m = ledger_of(a.memory), models = a.memory.models;
    const all = models ? m.budget_bytes : kv.all, held = models ? m.classes.find((x) => x.class === 'kv').ledger_bytes : kv.used;
    c.big.replaceChildren(h('strong', {}, all ? bytes(held) : t('none')), all ? ` ${t(models ? 'of_budget' : 'of_all', { all: bytes(all) })}` : '');
    c.bar.set(held / all);
    say(c.text, models ? t('kv_of_models', { n: models.length })
      : kv.all ? t('kv_says', { share: percent(kv.used / kv.all, 1), cached: bytes(kv.cached), free: bytes(kv.free) }) : t('no_blocks'));
  };
  return c;
}

const largest = (list, size) => list.reduce((best, x) => (!best || x[size] > best[size] ? x : best), null);

function largest_card(on_pick) {
  const title = h('span', {}), c = card('of-largest', 'a-largest', title);
  let id = null;
  const set = (held, all, of, text) => {
    c.big.replaceChildren(h('strong', {}, bytes(held)), ` ${of}`);
    c.bar.set(held / all);
    say(c.text, text);
  };
  c.el.addEventListener('pointerenter', () => on_pick(id));
  c.el.addEventListener('pointerleave', () => on_pick(null));
  c.update = (a) => {
    const s = largest(a.memory.sequences, 'bytes'), all = kv_bytes(a.memory.kv || {}).all, models = a.memory.models;
    id = s ? s.id : null;
    say(title, t(models ? 'largest_model' : 'largest_request'));
    if (models) {
      const m = largest(models, 'ledger_bytes');
      set(m.ledger_bytes, a.memory.budget_bytes, m.id, t('model_says', { state: word('model', m.state), n: m.requests, plan: bytes(m.plan_bytes) }));
    } else if (s) {
      const share = percent(s.bytes / (all || NaN)), age = duration(age_of(s, server_now()));
      set(s.bytes, all, t('request_n', { id }), t('largest_says', { share, tokens: count(s.tokens), state: word('state', s.state), age }));
    } else {
      c.big.replaceChildren(h('strong', {}, t('none')));
      c.bar.set(0);
      say(c.text, t('no_requests'));
    }
  };
  return c;
}

const VERDICTS = { fits: ['yes', 'good'], wait_memory: ['not_now', 'warn'], wait_margin: ['not_now', 'warn'], wait_queue: ['not_now', 'warn'],
  wait_place: ['not_now', 'warn'], never: ['no', 'bad'], too_long: ['no', 'bad'], none: ['yes', 'good'], several: ['unknown', ''] };

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
    const vars = { need: bytes(r.need), free: bytes(r.free), cached: bytes(r.cached), all: bytes(r.all), missing: bytes(r.need - r.free), kept: bytes(r.kept),
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
