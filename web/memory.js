/* The view of memory: answers, classes against the budget, blocks, requests, the last ten minutes. */
import { answers } from './answers.js';
import { blocks_card } from './blocks.js';
import { chart } from './chart.js';
import { card, h, heads, keyed, say, show, wide } from './dom.js';
import { bytes, count, word } from './format.js';
import { ledger_card } from './ledger.js';
import { sequences_card } from './sequences.js';
import { t } from './i18n.js';

/* Bytes of KV blocks at a point: the pool's mean block, since groups may differ. */
function kv_history(get_account) {
  const block = () => {
    const kv = get_account().memory.kv || {}, groups = kv.groups || [];
    const n = groups.reduce((sum, g) => sum + g.blocks, 0);
    return n ? groups.reduce((sum, g) => sum + g.blocks * g.block_bytes, 0) / n : 0;
  };
  const of = (name) => (p) => (p[name] === null || p[name] === undefined ? null : p[name] * block());
  return chart([
    { name: 'kv_used', class: 'c-kv', value: of('kv_used') },
    { name: 'cached', class: 'c-cached', value: of('kv_cached') },
  ], {
    label: 'kv_history', format: bytes,
    top: (points) => {
      const kv = get_account().memory.kv || {};
      return Math.max(kv.blocks || 0, ...points.map((p) => (p.kv_used || 0) + (p.kv_cached || 0) + (p.kv_free || 0)), 1) * (block() || 1);
    },
  });
}

function total_history() {
  return chart([
    { name: 'allocated', class: 'c-held', value: (p) => p.ledger_bytes },
    { name: 'planned', class: 'c-plan', value: (p) => p.plan_bytes, line: true },
    { name: 'budget', class: 'c-budget', value: (p) => p.budget_bytes, line: true },
  ], {
    label: 'total_history', format: bytes,
    top: (points) => Math.max(...points.map((p) => Math.max(p.budget_bytes || 0, p.ledger_bytes || 0)), 1) * 1.08,
  });
}

function tier_row() {
  const text = h('p', { class: 'note' });
  const el = card('tier', 'tier', text);
  el.hidden = true;
  const update = (a) => {
    const kv = a.memory.kv || {}, d = kv.disk || kv.host;
    show(el, Boolean(d));
    if (d) say(text, t('tier_says', { where: t(kv.disk ? 'on_disk' : 'in_host'), bytes: bytes(d.bytes), all: bytes(d.budget_bytes), chunks: count(d.chunks),
      hits: count(d.hit_tokens), on: t(d.on ? 'tier_on' : 'tier_off') }));
  };
  return { el, update };
}

function models_row() {
  const body = h('tbody', {}), el = card('models', 'models', null, wide('models', heads(['model', 'state', 'planned', 'allocated', 'requests'], 2), body));
  const update = (a) => {
    const models = a.memory.models || [];
    show(el, models.length);
    keyed(body, models, (m) => m.id, () => h('tr', {}, h('th', { scope: 'row' }), [0, 1, 1, 1].map((n) => h('td', { class: n ? 'n' : '' }))), (row, m) => {
      [m.id, word('model', m.state), bytes(m.plan_bytes), bytes(m.ledger_bytes), count(m.requests)].forEach((v, i) => say(row.children[i], v));
    });
  };
  return { el, update };
}

/* Cards have their heights when the picture of the blocks was drawn and measured: they are shown then, and nothing moves. */
function in_frames(n, run) {
  requestAnimationFrame(() => (n > 1 ? in_frames(n - 1, run) : run()));
}

export function memory_view() {
  let account = null, picked = null;
  const chosen = () => picked;
  const on_pick = (id) => {
    if (picked === id) return;
    picked = id;
    blocks.draw();
    sequences.mark();
  };
  const questions = answers({ on_pick });
  const ledger = ledger_card(), blocks = blocks_card({ chosen, on_pick }), sequences = sequences_card({ chosen, on_pick });
  const kv = kv_history(() => account), total = total_history(), tier = tier_row(), models = models_row();
  const history = card('history', 'last_minutes', null, kv.el, total.el);
  const cards = h('div', { class: 'pair unseen' }, h('div', { class: 'column' }, models.el, blocks.el, sequences.el, tier.el), h('div', { class: 'column' }, ledger.el, history));
  const el = h('div', { class: 'view memory' }, questions.el, cards);
  const update = (feed) => {
    account = feed.account;
    if (!account) return;
    for (const part of [questions, ledger, blocks, sequences, tier, models]) part.update(account);
    for (const part of [blocks, sequences, kv]) show(part.el, !account.memory.models); /* of several there are sums alone */
    kv.update(feed.points, Date.now());
    total.update(feed.points, Date.now());
    const has_picture = account.blocks.length || !account.memory.kv?.groups?.length;
    if (has_picture && cards.classList.contains('unseen')) in_frames(3, () => cards.classList.remove('unseen'));
  };
  return { el, update, recolour: blocks.recolour };
}

