/* The KV cache as a picture: a cell for each block (or for several), in the colour of the sequence that holds it.
 * Pools of layers with a window, and slots of recurrent states, are rows of their own. */
import { ledger_of } from './account.js';
import { attr, card, h, keyed, say, show, style } from './dom.js';
import { colour, forget_colours, sequence_colour } from './colours.js';
import { bytes, count } from './format.js';
import { has, t } from './i18n.js';

const CELL = { most: 14, least: 4 };
const WORDS = { shared: 'shared', cached: 'cached', fenced: 'fenced', out: 'kv_out', used: 'kv_used' };
const KIND_COLOUR = { shared: 'kv', used: 'kv', cached: 'kv', fenced: 'fenced', out: 'page' };

/* The largest cells with which n of them fit into width x height; with the least, the picture grows taller. */
function layout(n, width, height) {
  for (let size = CELL.most; size > CELL.least; size--) {
    const columns = Math.floor(width / size);
    if (columns > 0 && Math.ceil(n / columns) * size <= height) return { size, columns };
  }
  return { size: CELL.least, columns: Math.max(1, Math.floor(width / CELL.least)) };
}

const name_of = (what) => (what === null ? 'free' : typeof what === 'number' ? sequence_colour(what) : KIND_COLOUR[what] || 'kv');

function draw_cell(c, what, x, y, side, dim) {
  c.globalAlpha = dim ? 0.22 : 1;
  c.fillStyle = colour(name_of(what));
  if (what === 'out') {
    c.strokeStyle = colour('line');
    c.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
    return;
  }
  c.fillRect(x, y, side, side);
  if (what === 'cached' && side > 2) { /* hollow: free, with content */
    c.fillStyle = colour('card');
    c.fillRect(x + 1, y + 1, side - 2, side - 2);
  }
  if (what !== 'fenced' && what !== 'shared' || side < 4) return;
  c.strokeStyle = colour('card'); /* crossed: kinds differ without colours, too */
  c.lineWidth = 1;
  c.beginPath();
  c.moveTo(x, y + side);
  c.lineTo(x + side, y);
  c.moveTo(x, y);
  c.lineTo(x + side, y + side);
  c.stroke();
}

function draw(self) {
  const { canvas, picture } = self, width = canvas.clientWidth;
  if (!width || !picture) return;
  const cells = picture.cells, { size, columns } = layout(cells.length, width, self.height);
  const rows = Math.ceil(cells.length / columns), scale = window.devicePixelRatio || 1, gap = size > 6 ? 2 : 1;
  const w = Math.round(width * scale), hh = Math.round(rows * size * scale);
  self.size = size;
  self.columns = columns;
  style(canvas, 'height', `${rows * size}px`);
  if (canvas.width !== w || canvas.height !== hh) {
    canvas.width = w;
    canvas.height = hh;
  }
  const c = canvas.getContext('2d');
  c.setTransform(scale, 0, 0, scale, 0, 0);
  c.clearRect(0, 0, width, rows * size);
  const chosen = self.chosen();
  for (let i = 0; i < cells.length; i++)
    draw_cell(c, cells[i], (i % columns) * size, Math.floor(i / columns) * size, size - gap, chosen !== null && cells[i] !== chosen);
  c.globalAlpha = 1;
  if (self.at === null) return;
  c.strokeStyle = colour('text');
  c.lineWidth = 2;
  c.strokeRect((self.at % columns) * size, Math.floor(self.at / columns) * size, size - gap, size - gap);
}

/* The run of equal cells around one of them: [first, length]. */
function run_at(cells, i) {
  let first = i, end = i + 1;
  while (first > 0 && cells[first - 1] === cells[i]) first--;
  while (end < cells.length && cells[end] === cells[i]) end++;
  return [first, end - first];
}

function describe(self) {
  const { picture, at } = self;
  if (at === null || !picture || at >= picture.cells.length) return '';
  const [first, n] = run_at(picture.cells, at), what = picture.cells[at];
  const blocks = Math.min(n * picture.stride, picture.n - first * picture.stride);
  const who = what === null ? t('free') : typeof what === 'number' ? t('request_n', { id: what }) : has(WORDS[what]) ? t(WORDS[what]) : what;
  const at_first = count(first * picture.stride), last = count(first * picture.stride + blocks - 1);
  const place = self.slots ? t(blocks === 1 ? 'slot_at' : 'slots_at', { first: at_first, last, n: count(blocks) })
    : t(blocks === 1 ? 'block_at' : 'blocks_at', { first: at_first, last, n: count(blocks) });
  return `${who} · ${place}${self.unit_bytes ? ` · ${bytes(blocks * self.unit_bytes)}` : ''}`;
}

/* One picture. on_pick(id or null): the pointer or the cursor is on a sequence. */
function picture_of({ chosen, on_pick, height, say_at }) {
  const canvas = h('canvas', { class: 'blocks', tabindex: '0', role: 'img' });
  const title = h('h3', {}), facts = h('span', { class: 'note' });
  const el = h('div', { class: 'pool' }, h('div', { class: 'pool-head' }, title, facts), canvas);
  const self = { el, canvas, title, facts, chosen, height, at: null, picture: null, unit_bytes: 0, size: CELL.most, columns: 1 };
  self.draw = () => draw(self);
  const point_to = (i) => {
    const what = i === null || !self.picture ? null : self.picture.cells[i];
    self.at = i;
    say_at(describe(self));
    on_pick(typeof what === 'number' ? what : null);
    draw(self);
  };
  canvas.addEventListener('pointermove', (e) => {
    const i = Math.floor(e.offsetY / self.size) * self.columns + Math.floor(e.offsetX / self.size);
    point_to(self.picture && e.offsetX < self.columns * self.size && i < self.picture.cells.length ? i : null);
  });
  for (const end of ['pointerleave', 'blur']) canvas.addEventListener(end, () => point_to(null));
  canvas.addEventListener('keydown', (e) => {
    const cells = self.picture ? self.picture.cells : [];
    const i = self.at, run = i === null ? [0, 0] : run_at(cells, i);
    const next = { ArrowRight: run[0] + run[1], ArrowLeft: run[0] - 1, ArrowDown: (i ?? -self.columns) + self.columns, ArrowUp: (i ?? 0) - self.columns,
      Home: 0, End: cells.length - 1, Escape: null }[e.key];
    if (next === undefined || !cells.length) return;
    e.preventDefault();
    point_to(next === null ? null : Math.max(0, Math.min(cells.length - 1, next)));
  });
  new ResizeObserver(() => requestAnimationFrame(self.draw)).observe(canvas);
  return self;
}

function title_of(g) {
  if (g.tail) return t('pool_tail');
  return g.window ? t('pool_window', { n: count(g.window) }) : t('pool_full');
}

const cell_text = (text, stride) => (stride > 1 ? `${text} · ${t('cell_is', { n: stride })}` : text);

function update_pool(p, picture, group, block_tokens, state_bytes) {
  p.picture = picture;
  p.slots = !group;
  p.unit_bytes = group ? group.block_bytes : state_bytes / picture.n;
  p.height = group && group.window ? 56 : 252;
  say(p.title, group ? title_of(group) : t('pool_states'));
  const n = count(picture.n);
  const text = cell_text(group ? t('pool_says', { n, tokens: block_tokens, bytes: bytes(group.block_bytes), peak: count(group.peak_used) })
    : t('states_say', { n, bytes: bytes(p.unit_bytes) }), picture.stride);
  say(p.facts, text);
  attr(p.canvas, 'aria-label', group
    ? `${title_of(group)}. ${t('pool_counts', { used: count(group.used), cached: count(group.cached), free: count(group.free) })}`
    : `${t('pool_states')}. ${text}`);
  p.draw();
}

const LEGEND = [['kv', 'kv_used'], ['cached', 'cached'], ['fenced', 'fenced'], ['free', 'free']];

export function blocks_card({ chosen, on_pick }) {
  const line = h('p', { class: 'note reserve', 'aria-live': 'polite' });
  const pools = h('div', { class: 'pools' });
  const counts = {};
  const legend = h('ul', { class: 'legend' }, LEGEND.map(([cls, name]) => {
    counts[name] = h('span', { class: 'value' });
    return h('li', { tTitle: `about_${name}` }, h('i', { class: `swatch b-${cls}` }), h('span', { t: name }), counts[name]);
  }));
  const none = h('p', { class: 'note', t: 'no_blocks' });
  const el = card('kv', 'kv_blocks', legend, pools, none, line);
  const rest = () => { say(line, t('blocks_hint')); };
  const made = new Map();
  const pool_of = (key) => {
    if (!made.has(key)) made.set(key, picture_of({ chosen, on_pick, height: 224, say_at: (text) => (text ? say(line, text) : rest()) }));
    return made.get(key);
  };
  rest();
  const update = (a) => {
    const kv = a.memory.kv || {}, groups = kv.groups || [], states = ledger_of(a.memory).classes.find((c) => c.class === 'state');
    const items = a.blocks.map((b) => ({ key: `g${b.group}`, picture: b, group: groups[b.group] })).filter((i) => i.group);
    if (a.states) items.push({ key: 'states', picture: a.states, group: null });
    keyed(pools, items, (i) => i.key, (i) => pool_of(i.key).el, (row, i) => update_pool(pool_of(i.key), i.picture, i.group, kv.block_tokens, states?.plan_bytes));
    show(none, !items.length);
    if (![...made.values()].some((p) => p.at !== null)) rest();
    const fenced = groups.reduce((n, g) => n + g.fenced, 0), sum = (name) => groups.reduce((n, g) => n + g[name] * g.block_bytes, 0);
    say(counts.kv_used, bytes(sum('used')));
    say(counts.cached, bytes(sum('cached')));
    say(counts.fenced, count(fenced));
    say(counts.free, bytes(sum('free')));
  };
  return { el, update, draw: () => made.forEach((p) => p.draw()), recolour: () => { forget_colours(); made.forEach((p) => p.draw()); } };
}
