/* Requests in the server: a row for each sequence, the largest first, or in the order of a column. */
import { age_of, kv_bytes } from './account.js';
import { sequence_colour } from './colours.js';
import { meter } from './chart.js';
import { attr, card, h, keyed, say, show } from './dom.js';
import { bytes, count, duration, percent, rate, word } from './format.js';
import { t } from './i18n.js';
import { server_now } from './feed.js';

const COLUMNS = [
  { name: 'request', key: (s) => s.id, text: (s) => String(s.id) },
  { name: 'state', key: (s) => s.state, text: (s) => word('state', s.state) },
  { name: 'kv_memory', key: (s) => s.bytes, n: true, text: (s) => bytes(s.bytes) },
  { name: 'tokens', key: (s) => s.tokens, n: true, text: (s) => count(s.tokens) },
  { name: 'generated', key: (s) => s.tokens - s.prompt_tokens, n: true, text: (s) => count(Math.max(0, s.tokens - s.prompt_tokens)) },
  { name: 'from_cache', key: (s) => s.cached_tokens, n: true, text: (s) => (s.prompt_tokens ? percent(s.cached_tokens / s.prompt_tokens) : '–') },
  { name: 'tokens_s', key: (s) => (s.itl_ms ? 1000 / s.itl_ms : 0), n: true, text: (s) => (s.itl_ms ? rate(1000 / s.itl_ms) : '–') },
  { name: 'age', key: (s) => s.age, n: true, text: (s) => duration(s.age) },
];

function row_of(s, on_pick) {
  const bar = meter('inline');
  const cells = COLUMNS.map((c) => h(c.name === 'request' ? 'th' : 'td', { class: c.n ? 'n' : '', scope: c.name === 'request' ? 'row' : null }));
  const swatch = h('i', { class: `swatch q-${sequence_colour(s.id)}` });
  const row = h('tr', {}, cells);
  row.values = cells.map((cell) => h('span', {}));
  cells.forEach((cell, i) => cell.append(row.values[i]));
  cells[0].prepend(swatch);
  cells[2].prepend(bar.el);
  row.bar = bar;
  row.addEventListener('pointerenter', () => on_pick(s.id));
  row.addEventListener('pointerleave', () => on_pick(null));
  return row;
}

export function sequences_card({ chosen, on_pick }) {
  const sort = { by: 'kv_memory', down: true };
  const body = h('tbody', {});
  const heads = COLUMNS.map((c) => {
    const th = h('th', { scope: 'col', class: c.n ? 'n' : '' }, h('button', { type: 'button', t: c.name, tTitle: `about_${c.name}` }));
    th.firstChild.addEventListener('click', () => {
      sort.down = sort.by === c.name ? !sort.down : Boolean(c.n);
      sort.by = c.name;
      self.update(self.account);
    });
    return th;
  });
  const none = h('p', { class: 'note empty', t: 'no_requests' });
  const state = h('p', { class: 'note' });
  const scroll = h('div', { class: 'scroll seq-scroll', tabindex: '0', role: 'region', tLabel: 'requests' },
    h('table', { class: 'sequences', tLabel: 'requests' }, h('thead', {}, h('tr', {}, heads)), body), none);
  const el = card('requests', 'requests', state, scroll);
  const self = { el, account: null };
  self.mark = () => {
    for (const [id, row] of body.keyed || []) row.classList.toggle('chosen', id === chosen());
  };
  self.update = (a) => {
    if (!a) return;
    self.account = a;
    const column = COLUMNS.find((c) => c.name === sort.by), now = server_now(), used = kv_bytes(a.memory.kv || {}).used || 1;
    heads.forEach((th, i) => attr(th, 'aria-sort', COLUMNS[i] === column ? (sort.down ? 'descending' : 'ascending') : null));
    const rows = a.memory.sequences.map((s) => ({ ...s, age: age_of(s, now) }));
    rows.sort((x, y) => {
      const p = column.key(x), q = column.key(y);
      return (p < q ? -1 : p > q ? 1 : 0) * (sort.down ? -1 : 1) || x.id - y.id;
    });
    keyed(body, rows, (s) => s.id, (s) => row_of(s, on_pick), (row, s) => {
      COLUMNS.forEach((c, i) => say(row.values[i], c.text(s)));
      row.bar.set(s.bytes / used);
      attr(row, 'title', s.tenant ? t('tenant_is', { tenant: s.tenant }) : null);
    });
    show(none, !rows.length);
    const r = a.rates;
    say(state, t('requests_say', { running: r.running, waiting: r.waiting, preempted: r.preempted }));
    self.mark();
  };
  return self;
}
