/* The view of memory: answers, classes against the budget, blocks, requests, the last ten minutes. */
import { answers } from './answers.js';
import { blocks_card } from './blocks.js';
import { chart } from './chart.js';
import { card, h, keyed, say, show } from './dom.js';
import { bytes, count } from './format.js';
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
  const list = h('ul', { class: 'models' });
  const el = card('', 'models', null, list);
  el.hidden = true;
  const update = (a) => {
    const models = a.memory.models || [];
    show(el, models.length);
    keyed(list, models, (m) => m.id, () => h('li', {}), (row, m) => {
      say(row, t('model_says', { id: m.id, state: m.state, held: bytes(m.ledger_bytes), plan: bytes(m.plan_bytes), n: m.requests }));
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
  const cards = h('div', { class: 'pair unseen' }, h('div', { class: 'column' }, blocks.el, sequences.el, tier.el), h('div', { class: 'column' }, ledger.el, history, models.el));
  const el = h('div', { class: 'view memory' }, questions.el, cards);
  const update = (feed) => {
    account = feed.account;
    if (!account) return;
    for (const part of [questions, ledger, blocks, sequences, tier, models]) part.update(account);
    kv.update(feed.points, Date.now());
    total.update(feed.points, Date.now());
    const has_picture = account.blocks.length || !account.memory.kv?.groups?.length;
    if (has_picture && cards.classList.contains('unseen')) in_frames(3, () => cards.classList.remove('unseen'));
  };
  return { el, update, recolour: blocks.recolour };
}

