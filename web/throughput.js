/* The view of throughput and latency: what users feel, and what the server does for it. */
import { chart, nice } from './chart.js';
import { card, h, heads, keyed, say, show } from './dom.js';
import { count, duration, percent, rate } from './format.js';
import { t } from './i18n.js';

/* What one figure is made of: its title, its number, and a line below. */
const TILES = [
  { name: 'generated_per_s', value: (a) => rate(a.rates.generated_tokens_per_s),
    note: (a) => t('tokens_in_all', { n: count(a.rates.counts.generated_tokens) }) },
  { name: 'prompt_per_s', value: (a) => rate(a.rates.prompt_tokens_per_s), note: (a) => t('tokens_in_all', { n: count(a.rates.counts.prompt_tokens) }) },
  { name: 'running_now', value: (a) => count(a.rates.running), note: (a, feed) => (feed.places ? t('of_places', { n: feed.places }) : '') },
  { name: 'waiting_now', value: (a) => count(a.rates.waiting), note: (a) => t('preempted_now', { n: count(a.rates.preempted) }) },
  { name: 'prefix_hits', value: (a, feed) => percent(hit_rate(a, feed)), note: (a) => t('hits_in_all', { n: count(a.rates.counts.prefix_cache_hits) }) },
  { name: 'preemptions', value: (a) => count(a.rates.counts.preemptions), note: (a) => t('recomputed', { n: count(a.rates.counts.recomputed_tokens) }) },
  { name: 'finished', value: (a) => count(a.rates.counts.finished), note: (a) => t('per_s', { n: rate(a.rates.requests_per_s) }) },
  { name: 'refused', value: (a) => count(a.rates.counts.rejected + a.rates.counts.http_4xx + a.rates.counts.http_5xx),
    note: (a) => t('refused_says', { c4: count(a.rates.counts.http_4xx), c5: count(a.rates.counts.http_5xx), left: count(a.rates.counts.client_left) }) },
  { name: 'speculation', only: (a) => a.rates.counts.drafted_tokens !== undefined,
    value: (a) => percent(a.rates.counts.accepted_tokens / a.rates.counts.drafted_tokens),
    note: (a) => t('drafted', { n: count(a.rates.counts.drafted_tokens) }) },
];

/* Of the last minutes where prompts came, else of all since the start. */
function hit_rate(a, feed) {
  const known = feed.points.filter((p) => p.queries !== undefined), first = known[0], c = a.rates.counts;
  const queries = first ? c.prefix_cache_queries - first.queries : 0;
  if (queries > 0) return (c.prefix_cache_hits - first.hits) / queries;
  return c.prefix_cache_queries ? c.prefix_cache_hits / c.prefix_cache_queries : null;
}

function tiles() {
  const made = TILES.map((tile) => {
    const value = h('p', { class: 'value' }), note = h('p', { class: 'note reserve' });
    return { ...tile, el: h('section', { class: 'card tile', hidden: Boolean(tile.only) }, h('h2', { t: tile.name }), value, note), value_el: value, note_el: note };
  });
  const update = (a, feed) => {
    for (const tile of made) {
      const there = !tile.only || tile.only(a);
      show(tile.el, there);
      if (!there) continue;
      say(tile.value_el, tile.value(a, feed));
      say(tile.note_el, tile.note(a, feed));
    }
  };
  return { el: h('div', { class: 'tiles' }, made.map((m) => m.el)), update };
}

const ms = (v) => (v === null || v === undefined ? '–' : duration(v / 1000));

/* Percentiles of the last minute and of the last ten. */
function latency_table() {
  const body = h('tbody', {});
  const table = h('table', { tLabel: 'latency' }, heads(['of', 'window', 'p50', 'p90', 'p99', 'samples'], 2), body);
  const el = card('', 'latency', null, h('div', { class: 'scroll' }, table), h('p', { class: 'note', t: 'latency_note' }));
  const update = (a) => {
    const rows = [];
    for (const kind of ['ttft_ms', 'itl_ms'])
      for (const l of a.latency) rows.push({ key: `${kind}${l.window_s}`, kind, window: l.window_s, q: l[kind] || {} });
    keyed(body, rows, (r) => r.key, () => h('tr', {}, h('th', { scope: 'row' }), [0, 1, 2, 3, 4].map((i) => h('td', { class: i ? 'n' : '' }))), (row, r) => {
      const c = row.children;
      say(c[0], t(r.kind));
      say(c[1], duration_of_window(r.window));
      ['p50', 'p90', 'p99'].forEach((p, i) => say(c[i + 2], ms(r.q[p])));
      say(c[5], count(r.q.n || 0));
    });
  };
  return { el, update };
}

const duration_of_window = (s) => (s % 60 ? t('n_seconds', { n: s }) : t('n_minutes', { n: s / 60 }));

function keys_table() {
  const body = h('tbody', {}), note = h('p', { class: 'note' });
  const names = ['key_name', 'open_requests', 'all_requests', 'limited', 'prompt_tokens', 'generated_tokens'];
  const el = card('keys', 'by_key', note, h('div', { class: 'scroll' }, h('table', { tLabel: 'by_key' }, heads(names), body)));
  el.hidden = true;
  const update = (a) => {
    const keys = a.keys || [];
    show(el, keys.length);
    say(note, a.may && a.may.keys === 'own' ? t('own_key_alone') : '');
    keyed(body, keys, (k) => k.name, () => h('tr', {}, h('th', { scope: 'row' }), [0, 1, 2, 3, 4].map(() => h('td', { class: 'n' }))), (row, k) => {
      say(row.firstChild, k.name);
      [k.open, k.requests, k.limited, k.prompt_tokens, k.generated_tokens].forEach((v, i) => say(row.children[i + 1], count(v)));
    });
  };
  return { el, update };
}

const load_of = (p) => (p.running || 0) + (p.waiting || 0) + (p.preempted || 0);
const top_of = (...names) => (points) => nice(Math.max(...points.map((p) => Math.max(...names.map((n) => p[n] || 0))), 0.001) * 1.05);

const lines = (names) => names.map(([name, cls, field]) => ({ name, class: cls, line: true, value: (p) => p[field] }));

function percentiles(of) {
  const p50 = `${of}_p50_ms`, p99 = `${of}_p99_ms`;
  return chart(lines([['p50', 'c-p50', p50], ['p99', 'c-p99', p99]]), { label: `${of}_history`, format: ms, top: top_of(p50, p99) });
}

function charts() {
  const all = [
    ['tokens_history', chart(lines([['generated', 'c-out', 'generated_tokens_per_s'], ['of_prompts', 'c-in', 'prompt_tokens_per_s']]),
      { label: 'tokens_history', format: rate, top: top_of('generated_tokens_per_s', 'prompt_tokens_per_s') })],
    ['load_history', chart([
      { name: 'running', class: 'c-out', value: (p) => p.running },
      { name: 'waiting', class: 'c-wait', value: (p) => (p.waiting === null ? null : p.waiting + (p.preempted || 0)) },
    ], { label: 'load_history', format: (v) => (v % 1 ? rate(v) : count(v)), top: (points) => nice(Math.max(...points.map(load_of), 2)) })],
    ['ttft_history', percentiles('ttft')],
    ['itl_history', percentiles('itl')],
  ];
  const el = h('div', { class: 'two-up' }, all.map(([name, c]) => card('', name, null, c.el)));
  return { el, update: (a, feed) => all.forEach(([, c]) => c.update(feed.points, Date.now())) };
}

export function throughput_view() {
  const parts = [tiles(), charts(), latency_table(), keys_table()];
  const el = h('div', { class: 'view throughput' }, parts.map((p) => p.el));
  const update = (feed) => {
    if (feed.account) for (const p of parts) p.update(feed.account, feed);
  };
  return { el, update };
}
