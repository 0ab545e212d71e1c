/* A picture of the last ten minutes: areas stacked on each other, and lines. Its size is fixed, so that
 * nothing moves when figures come; a cursor (pointer, or arrow keys) reads single moments. */
import { attr, h, say, style, svg } from './dom.js';
import { clock } from './format.js';
import { t } from './i18n.js';

export const SPAN_MS = 600e3;
const W = 600, H = 100;

/* The top of a scale: the smallest of 1, 2, 5 times a power of ten that is not below v. */
export function nice(v) {
  if (!(v > 0)) return 1;
  const p = 10 ** Math.floor(Math.log10(v));
  return [1, 2, 5, 10].find((m) => m * p >= v * 0.9999) * p;
}

const x_of = (at, now) => W * (1 - (now - at) / SPAN_MS);

/* The points of one series as a path; a gap of more than 10 s ends it. */
function path_of(points, value, base, now, top) {
  const y = (v) => H - (H * Math.min(v, top)) / top;
  let d = '', back = [], last = null;
  const close = () => {
    if (base && back.length) d += back.reverse().map((p) => `L${p}`).join('') + 'Z';
    back = [];
  };
  for (const p of points) {
    const v = value(p);
    if (v === null || v === undefined) continue;
    const x = x_of(p.at, now).toFixed(1);
    if (last === null || p.at - last > 10e3) {
      close();
      d += 'M';
    } else {
      d += 'L';
    }
    d += `${x},${y(v).toFixed(2)}`;
    if (base) back.push(`${x},${y(base(p)).toFixed(2)}`);
    last = p.at;
  }
  close();
  return d;
}

function legend_of(series) {
  return h('ul', { class: 'legend' }, series.map((s) => {
    s.value_el = h('span', { class: 'value' });
    return h('li', {}, h('i', { class: `swatch ${s.class}${s.line ? ' line' : ''}` }), h('span', { t: s.name }), s.value_el);
  }));
}

/* The cursor, moved by pointer and keys: self.at is the moment, null for now. */
function listen(plot, self, read) {
  const leave = () => {
    self.at = null;
    read();
  };
  plot.addEventListener('pointermove', (e) => {
    const box = plot.getBoundingClientRect();
    self.at = self.now - SPAN_MS * (1 - (e.clientX - box.left) / box.width);
    read();
  });
  plot.addEventListener('pointerleave', leave);
  plot.addEventListener('blur', leave);
  plot.addEventListener('keydown', (e) => {
    const step = { ArrowLeft: -10e3, ArrowRight: 10e3, PageUp: -60e3, PageDown: 60e3 }[e.key];
    if (!step) return;
    e.preventDefault();
    self.at = Math.max(self.now - SPAN_MS, Math.min(self.now, (self.at ?? self.now) + step));
    read();
  });
}

/* The point at the cursor: the nearest in time, without one the newest. */
function point_at({ points, at }) {
  if (at === null || !points.length) return points[points.length - 1];
  return points.reduce((best, p) => (Math.abs(p.at - at) < Math.abs(best.at - at) ? p : best));
}

/* series: [{name (key of a text), class, value(point), line}]; those without line are stacked in their order.
 * options: label (key), format(v), top(points): the height of the scale */
export function chart(series, options) {
  const areas = series.filter((s) => !s.line), lines = series.filter((s) => s.line);
  for (const s of series) s.path = svg('path', { class: (s.line ? 'line ' : 'area ') + s.class });
  const cursor = svg('line', { class: 'cursor', y1: 0, y2: H, x1: -9, x2: -9 });
  const grid = [0.25, 0.5, 0.75].map((f) => svg('line', { class: 'grid', x1: 0, x2: W, y1: H * f, y2: H * f }));
  const picture = svg('svg', { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    grid, areas.map((s) => s.path), lines.map((s) => s.path), cursor);
  const top_label = h('span', { class: 'y y-top' }), mid_label = h('span', { class: 'y y-mid' }), when = h('span', { class: 'when note' });
  const plot = h('div', { class: 'plot', tabindex: '0', role: 'img', tLabel: options.label }, picture, top_label, mid_label);
  const axis = h('div', { class: 'axis', 'aria-hidden': 'true' }, h('span', { t: 'ago_10' }), h('span', { t: 'ago_5' }), h('span', { t: 'now' }));
  const el = h('figure', { class: 'chart' }, h('figcaption', {}, legend_of(series), when), plot, axis);
  const self = { el, points: [], now: 0, at: null };

  const read = () => {
    const p = point_at(self);
    for (const s of series) {
      const v = p ? s.value(p) : null;
      say(s.value_el, v === null || v === undefined ? '–' : options.format(v));
    }
    say(when, self.at === null || !p ? '' : clock(p.at));
    for (const x of ['x1', 'x2']) attr(cursor, x, self.at === null || !p ? -9 : x_of(p.at, self.now).toFixed(1));
    attr(plot, 'aria-label', `${t(options.label)}. ${series.map((s) => `${t(s.name)} ${s.value_el.textContent}`).join(', ')}`);
  };
  listen(plot, self, read);

  self.update = (points, now) => {
    Object.assign(self, { points, now });
    const top = options.top(points);
    areas.forEach((s, i) => {
      const base = (p) => areas.slice(0, i).reduce((sum, a) => sum + (a.value(p) || 0), 0);
      const value = (p) => (s.value(p) === null || s.value(p) === undefined ? null : base(p) + s.value(p));
      attr(s.path, 'd', path_of(points, value, base, now, top));
    });
    for (const s of lines) attr(s.path, 'd', path_of(points, s.value, null, now, top));
    say(top_label, options.format(top));
    say(mid_label, options.format(top / 2));
    read();
  };
  return self;
}

/* A bar of which a share is taken; its text stands beside it. */
export function meter(cls) {
  const fill = h('i', {});
  const el = h('span', { class: `meter ${cls || ''}`, 'aria-hidden': 'true' }, fill);
  return { el, set: (share) => style(fill, 'width', `${(Math.max(0, Math.min(1, share || 0)) * 100).toFixed(2)}%`) };
}
