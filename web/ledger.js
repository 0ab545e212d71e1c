/* Memory by class: a bar of what is allocated and planned against the budget, the same as a table, what the kernel
 * counts beside it, and the form that moves the budget. */
import { ledger_of } from './account.js';
import { attr, card, h, heads, keyed, say, show, style } from './dom.js';
import { bytes, parse_bytes, percent, word } from './format.js';
import { has, t } from './i18n.js';
import { put } from './net.js';
import { chart_class } from './classes.js';

const shown = (c) => c.plan_bytes || c.ledger_bytes || c.peak_bytes;

function stack_bar() {
  const parts = h('div', { class: 'stack' });
  const mark = h('span', { class: 'budget-mark' });
  const el = h('div', { class: 'stack-frame', role: 'img' }, parts, mark);
  const update = (m) => {
    const all = Math.max(m.budget_bytes, m.plan_bytes, m.ledger_bytes) || 1;
    const items = [];
    for (const c of m.classes.filter(shown)) {
      items.push({ key: c.class, cls: chart_class(c.class), n: c.ledger_bytes, name: c.class });
      items.push({ key: `${c.class}+`, cls: `${chart_class(c.class)} planned`, n: c.plan_bytes - c.ledger_bytes, name: c.class });
    }
    keyed(parts, items.filter((i) => i.n > 0), (i) => i.key, (i) => h('i', { class: i.cls }), (row, i) => {
      row.classList.toggle('wide', i.n / all > 0.01);
      style(row, 'width', `${((i.n / all) * 100).toFixed(3)}%`);
      attr(row, 'title', `${word('class', i.name)}: ${bytes(i.n)}`);
    });
    style(mark, 'left', `${((m.budget_bytes / all) * 100).toFixed(3)}%`);
    attr(el, 'aria-label', t('bar_says', { held: bytes(m.ledger_bytes), plan: bytes(m.plan_bytes), budget: bytes(m.budget_bytes) }));
  };
  return { el, update };
}

function class_row(c) {
  const cells = ['plan', 'held', 'peak'].map((name) => h('td', { class: `n ${name}` }));
  const head = h('th', { scope: 'row' }, h('i', { class: `swatch ${chart_class(c.class)}` }), h('span', {}));
  const row = h('tr', {}, head, cells);
  row.cells_of = cells;
  row.name = head.lastChild;
  return row;
}

function class_table() {
  const body = h('tbody', {});
  const sum = ['plan', 'held', 'peak'].map(() => h('td', { class: 'n' }));
  const el = h('div', { class: 'scroll' }, h('table', { class: 'classes', tLabel: 'memory_by_class' },
    heads(['class', 'planned', 'allocated', 'peak']), body, h('tfoot', {}, h('tr', {}, h('th', { scope: 'row', t: 'total' }), sum))));
  const update = (m) => {
    keyed(body, m.classes.filter(shown), (c) => c.class, class_row, (row, c) => {
      say(row.name, word('class', c.class));
      attr(row.name, 'title', has(`about_${c.class}`) ? t(`about_${c.class}`) : null);
      [c.plan_bytes, c.ledger_bytes, c.peak_bytes].forEach((v, i) => say(row.cells_of[i], bytes(v)));
    });
    [m.plan_bytes, m.ledger_bytes, m.peak_bytes].forEach((v, i) => say(sum[i], bytes(v)));
  };
  return { el, update };
}

/* What the outside counts: the kernel, or the driver of a device. */
function outside() {
  const rows = h('dl', { class: 'facts' });
  const update = (memory) => {
    const d = memory.device, p = memory.process, facts = [];
    if (d && d.driver) {
      facts.push(['driver_used', d.driver.used_bytes], ['driver_context', d.driver.context_and_libraries_bytes]);
      facts.push(['device_unaccounted', d.unaccounted_bytes]);
    }
    if (p) facts.push(['kernel_counts', p.anonymous_bytes]);
    facts.push(['unaccounted', memory.unaccounted_bytes]);
    const make = ([name]) => h('div', { tTitle: `about_${name}` }, h('dt', { t: name }), h('dd', {}));
    keyed(rows, facts, (f) => f[0], make, (row, f) => say(row.lastChild, bytes(f[1])));
  };
  return { el: rows, update };
}

/* ---- moving the budget ---- */

function budget_form() {
  const slider = h('input', { type: 'range', id: 'budget-slider', min: 0, max: 1000, tLabel: 'budget' });
  const text = h('input', { type: 'text', id: 'budget-text', class: 'short', autocomplete: 'off', spellcheck: 'false', tLabel: 'new_budget' });
  const apply = h('button', { type: 'submit', class: 'quiet', t: 'apply' });
  const said = h('p', { class: 'note reserve', role: 'status' });
  const form = h('form', { class: 'budget-form', tLabel: 'move_budget' }, h('div', { class: 'row nowrap' }, slider, text, apply), said);
  const body = h('details', { class: 'move' }, h('summary', { t: 'move_budget' }), form);
  const self = { el: body, least: 0, most: 0, edited: false, busy: false, answered: false };

  const wanted = () => parse_bytes(text.value);
  const from_slider = () => self.least + Math.round(((self.most - self.least) * Number(slider.value)) / 1000);
  slider.addEventListener('input', () => {
    self.edited = true;
    text.value = bytes(from_slider());
  });
  text.addEventListener('input', () => {
    self.edited = true;
    const n = wanted();
    attr(text, 'aria-invalid', Number.isNaN(n) ? 'true' : null);
    if (!Number.isNaN(n) && self.most > self.least) slider.value = ((n - self.least) / (self.most - self.least)) * 1000;
  });
  form.addEventListener('submit', async (e) => {
    e.preventDefault();
    const n = wanted();
    if (Number.isNaN(n) || self.busy) return;
    self.busy = true;
    said.className = 'note reserve';
    say(said, t('moving'));
    try {
      const r = await put('v1/memory', { budget_bytes: Math.min(self.most, Math.max(self.least, n)) });
      say(said, t(r.done ? 'moved' : 'moves_on', { bytes: bytes(r.target_bytes) }));
      self.edited = false;
    } catch (err) {
      said.className = 'note reserve bad';
      say(said, err.message);
    }
    self.busy = false;
    self.answered = true;
  });

  self.update = (a) => {
    const m = a.memory, may = Boolean(a.may && a.may.resize);
    self.least = m.smallest_budget_bytes;
    self.most = m.memory_max_bytes;
    for (const c of [slider, text, apply]) c.disabled = !may || self.busy;
    if (!self.edited) {
      slider.value = self.most > self.least ? ((m.target_bytes - self.least) / (self.most - self.least)) * 1000 : 1000;
      if (document.activeElement !== text) text.value = bytes(m.target_bytes);
    }
    if (!self.busy && !self.answered) say(said, t('budget_between', { least: bytes(self.least), most: bytes(self.most) }));
    if (!may) say(said, t('budget_not_here'));
  };
  return self;
}

/* ---- the card ---- */

/* Why another budget than the operator's is in force, or will be. */
function why_less(memory) {
  if (memory.resizing) return t('resizing', { bytes: bytes(memory.target_bytes) });
  if (memory.pressure && memory.pressure.state === 'pressed') return t('pressed');
  return memory.idle && memory.idle.released ? t('idle_released') : '';
}

export function ledger_card() {
  const state = h('p', { class: 'note' });
  const bar = stack_bar(), table = class_table(), out = outside(), form = budget_form();
  const host = h('details', { class: 'host-classes', hidden: true }, h('summary', { t: 'host_memory' }));
  const host_table = class_table();
  host.append(host_table.el);
  const el = card('ledger', 'memory_against_budget', state, bar.el, table.el, out.el, host, form.el);
  const update = (a) => {
    const m = ledger_of(a.memory), all = a.memory;
    bar.update(m);
    table.update(m);
    out.update(all);
    show(host, Boolean(all.device));
    if (all.device) host_table.update(all);
    form.update(a);
    const held = t('held_of', { held: bytes(m.ledger_bytes), budget: bytes(m.budget_bytes), share: percent(m.ledger_bytes / m.budget_bytes) });
    say(state, [all.device?.name, held, why_less(all)].filter(Boolean).join(' · '));
  };
  return { el, update };
}
