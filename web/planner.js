/* The planner: what the served model takes with other options, before anything is changed. POST /v1/plan. */
import { chart_class } from './classes.js';
import { attr, card, copy_button, field, h, heads, say, show, style, wide } from './dom.js';
import { bytes, count, number, parse_bytes, rate, word } from './format.js';
import { t } from './i18n.js';
import { post } from './net.js';

const KV_TYPES = ['', 'f16', 'bf16', 'f32', 'int8', 'q8_0', 'fp8', 'int4'];

function plan_form(on_plan) {
  const text = (attrs) => h('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', ...attrs });
  const whole = (attrs) => h('input', { type: 'number', min: 1, step: 1, inputmode: 'numeric', tHint: 'as_served', ...attrs });
  const c = {
    model: h('select', { id: 'plan-model' }), memory: text({ id: 'plan-memory', tHint: 'as_served' }), max_model_len: whole({ id: 'plan-len' }),
    max_num_seqs: whole({ id: 'plan-seqs' }), max_num_batched_tokens: whole({ id: 'plan-batch' }),
    kv_cache_dtype: h('select', { id: 'plan-kv' }, KV_TYPES.map((v) => (v ? h('option', { value: v }, v) : h('option', { value: '', t: 'as_served' })))),
    bandwidth: text({ id: 'plan-bw', placeholder: '41GB/s' }), fit: h('input', { type: 'checkbox', id: 'plan-fit' }),
  };
  const model_field = field('model', c.model), said = h('p', { class: 'bad reserve', role: 'alert' });
  const el = h('form', { class: 'card plan-form', 'aria-labelledby': 'plan-h' },
    h('h2', { id: 'plan-h', t: 'plan_title' }), h('p', { class: 'note', t: 'plan_note' }), model_field,
    field('plan_memory', c.memory, h('p', { class: 'note', t: 'memory_example' })),
    h('div', { class: 'grid2' }, field('max_model_len', c.max_model_len), field('max_num_seqs', c.max_num_seqs)),
    h('div', { class: 'grid2' }, field('kv_cache_dtype', c.kv_cache_dtype), field('bandwidth', c.bandwidth)),
    field('max_num_batched_tokens', c.max_num_batched_tokens),
    h('div', { class: 'check' }, c.fit, h('label', { for: 'plan-fit', t: 'compare_weights' })),
    h('button', { type: 'submit', class: 'primary', t: 'plan_it' }), said);
  const body_of = (budget) => {
    const body = { grid: true };
    if (c.model.value) body.model = c.model.value;
    for (const name of ['max_model_len', 'max_num_seqs', 'max_num_batched_tokens']) if (c[name].value) body[name] = Number(c[name].value);
    for (const name of ['kv_cache_dtype', 'bandwidth']) if (c[name].value.trim()) body[name] = c[name].value.trim();
    const memory = c.memory.value.trim() ? parse_bytes(c.memory.value) : null;
    attr(c.memory, 'aria-invalid', Number.isNaN(memory) ? 'true' : null);
    if (Number.isNaN(memory)) throw new Error(t('not_bytes', { text: c.memory.value }));
    if (memory) body.memory = memory;
    if (c.fit.checked) body.fit = memory || budget;
    return body;
  };
  el.addEventListener('submit', (e) => { e.preventDefault(); on_plan(); });
  const set_models = (models) => {
    const names = models.map((m) => m.id).join('\n');
    if (c.model.dataset.names === names) return;
    c.model.dataset.names = names;
    c.model.replaceChildren(...models.map((m) => h('option', { value: m.id }, m.id)));
    show(model_field, models.length > 1);
  };
  return { el, body_of, set_models, said };
}

/* ---- the answer ---- */

function sums_of(terms) {
  const sums = new Map();
  for (const x of terms) if (!x.while_loading) sums.set(x.class, (sums.get(x.class) || 0) + x.bytes);
  return [...sums].map(([name, n]) => ({ name, n }));
}

function verdict_el(plan) {
  const v = plan.verdict;
  const n = number(v.sequences, 1), budget = bytes(plan.budget_bytes);
  const says = v.fits ? t('plan_holds', { total: bytes(plan.total_bytes), budget, n, len: count(sequence_length(plan)) })
    : t('plan_lacks', { more: bytes(v.needs_more_bytes), least: bytes(plan.smallest_budget_bytes) });
  const el = h('div', { class: `verdict ${v.fits ? 'good' : 'bad'}`, role: 'status' }, h('strong', {}, t(v.fits ? 'it_fits' : 'it_fits_not')), ' ', says);
  for (const f of v.fits_with || []) {
    const text = t('fits_with', { change: f.change, n: number(f.sequences, 1), len: count(f.max_model_len) });
    el.append(h('div', { class: 'note' }, text));
  }
  if (!plan.can_be_served && plan.why_not) el.append(h('div', { class: 'note' }, plan.why_not));
  return el;
}

const sequence_length = (plan) => (plan.verdict.sequences ? Math.round(plan.kv.tokens / plan.verdict.sequences) : 0);

function picture_el(plan) {
  const all = Math.max(plan.budget_bytes, plan.total_bytes, 1), stack = h('div', { class: 'stack' });
  for (const s of sums_of(plan.terms)) {
    const cls = `${chart_class(s.name)}${s.n / all > 0.01 ? ' wide' : ''}`;
    const part = h('i', { class: cls, title: `${word('class', s.name)}: ${bytes(s.n)}` });
    style(part, 'width', `${((s.n / all) * 100).toFixed(3)}%`);
    stack.append(part);
  }
  const mark = h('span', { class: 'budget-mark' });
  style(mark, 'left', `${((plan.budget_bytes / all) * 100).toFixed(3)}%`);
  const total = bytes(plan.total_bytes), label = t('bar_says', { held: total, plan: total, budget: bytes(plan.budget_bytes) });
  return h('div', { class: 'stack-frame', role: 'img', 'aria-label': label }, stack, mark);
}

function legend_el(plan) {
  const sums = sums_of(plan.terms).sort((a, b) => b.n - a.n);
  const swatch = (name) => h('i', { class: `swatch ${chart_class(name)}` });
  return h('ul', { class: 'legend' },
    sums.map((s) => h('li', {}, swatch(s.name), word('class', s.name), h('span', { class: 'value' }, bytes(s.n)))));
}

function terms_el(plan) {
  const row = (x) => h('tr', {},
    h('th', { scope: 'row' }, h('i', { class: `swatch ${chart_class(x.class)}` }), word('class', x.class)),
    h('td', { class: 'n' }, bytes(x.bytes)), h('td', {}, word('kind', x.kind)),
    h('td', { class: 'what' }, x.what + (x.while_loading ? ` (${t('while_loading')})` : '')));
  const sum = h('tr', {}, h('th', { scope: 'row' }, t('total')), h('td', { class: 'n' }, bytes(plan.total_bytes)), h('td', {}), h('td', {}));
  const head = heads(['class', 'bytes', 'kind', 'what'], 4);
  head.querySelectorAll('th')[1].className = 'n';
  return wide('terms', head, h('tbody', {}, plan.terms.map(row)), h('tfoot', {}, sum));
}

function limits_of({ MemoryMax, kubernetes: { requests, limits } }) {
  const asked = `requests: {cpu: "${requests.cpu}", memory: ${requests.memory}}`;
  const gpu = limits['nvidia.com/gpu'] ? `, nvidia.com/gpu: ${limits['nvidia.com/gpu']}` : '';
  return `MemoryMax=${MemoryMax}\nresources: {${asked}, limits: {memory: ${limits.memory}${gpu}}}\n`;
}

function goal_el(r) {
  const type = r.type_k === r.type_v ? r.type_k : `${r.type_k}, ${r.type_v}`, e = r.estimate;
  const facts = [['max_num_seqs', count(r.max_num_seqs)], ['max_model_len', count(r.max_model_len)], ['kv_cache_dtype', type],
    ['memory', bytes(r.memory_bytes)]];
  if (e) facts.push(['tokens_s_one', `≤ ${rate(e.tokens_per_s_of_one)}`], ['tokens_s_all', `≤ ${rate(e.tokens_per_s_of_all)}`]);
  if (r.quality) facts.push(['kl', String(r.quality.kl)]);
  return h('section', { class: 'goal' }, h('h3', { t: `goal_${r.goal}` }),
    h('dl', { class: 'facts' }, facts.map(([k, v]) => h('div', {}, h('dt', { t: k }), h('dd', {}, v)))),
    h('pre', { class: 'code', tabindex: '0', 'aria-label': 'vramd.conf' }, r.conf || t('nothing_to_change')),
    h('div', { class: 'row' }, copy_button('copy_conf', () => r.conf, 'quiet small'), copy_button('copy_limits', () => limits_of(r.limits), 'quiet small')));
}

const number_cell = (text, cls) => h('td', { class: `n ${cls || ''}` }, text);

function grid_el(grid) {
  const lens = [...new Set(grid.map((g) => g.max_model_len))], seqs = [...new Set(grid.map((g) => g.max_num_seqs))];
  const cell = (len, n) => {
    const g = grid.find((x) => x.max_model_len === len && x.max_num_seqs === n);
    return g ? number_cell(`${bytes(g.memory_bytes)} ${g.fits ? '✓' : '✕'}`, g.fits ? 'good' : 'bad') : number_cell('–');
  };
  const head = h('tr', {}, h('th', { scope: 'col', t: 'grid_corner' }), seqs.map((n) => h('th', { scope: 'col', class: 'n' }, count(n))));
  const rows = lens.map((len) => h('tr', {}, h('th', { scope: 'row' }, count(len)), seqs.map((n) => cell(len, n))));
  return wide('grid_title', h('thead', {}, head), h('tbody', {}, rows));
}

function fit_el(fit) {
  const row = (w) => h('tr', {}, h('th', { scope: 'row' }, `${w.type} ${w.fits ? '✓' : '✕'}`),
    [bytes(w.weight_bytes), bytes(w.smallest_budget_bytes), number(w.sequences, 1), w.kl === undefined ? '–' : String(w.kl)].map((v) => number_cell(v)));
  return wide('fit_title', heads(['weights', 'bytes', 'smallest_budget', 'sequences', 'kl']), h('tbody', {}, fit.weights.map(row)));
}

function answer_parts(plan) {
  const parts = [verdict_el(plan), card('', 'plan_picture', null, picture_el(plan), legend_el(plan))], goals = plan.recommended || [];
  if (goals.length) parts.push(card('', 'what_to_do', null, h('div', { class: 'goals' }, goals.map(goal_el)), h('p', { class: 'note', t: 'speed_note' })));
  if (plan.grid) parts.push(card('', 'grid_title', null, grid_el(plan.grid)));
  if (plan.fit) parts.push(card('', 'fit_title', null, fit_el(plan.fit)));
  parts.push(card('terms', 'terms', null, terms_el(plan)));
  return parts;
}

export function planner_view() {
  const answer = h('div', { class: 'plan-answer', 'aria-live': 'polite' });
  let plan = null, latest = null, busy = false;
  const draw = () => answer.replaceChildren(...(plan ? answer_parts(plan) : [h('p', { class: 'note empty', t: 'no_plan_yet' })]));
  const run = async () => {
    if (busy) return;
    busy = true;
    say(form.said, '');
    answer.setAttribute('aria-busy', 'true');
    try {
      plan = await post('v1/plan', form.body_of(latest && latest.account ? latest.account.memory.budget_bytes : 0));
      draw();
    } catch (e) {
      say(form.said, e.param ? `${e.param}: ${e.message}` : e.message);
    }
    busy = false;
    answer.removeAttribute('aria-busy');
  };
  const form = plan_form(run);
  const el = h('div', { class: 'view plan' }, form.el, answer);
  draw();
  let asked = false;
  return {
    el, redraw: draw,
    update: (feed) => {
      latest = feed;
      form.set_models(feed.models);
    },
    /* The first time that it is looked at: the plan of what is served now. */
    opened: () => {
      if (asked || !latest || latest.phase !== 'ready') return;
      asked = true;
      run();
    },
  };
}
