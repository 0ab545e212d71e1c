/* Numbers as people read them. Bytes in binary units with one decimal, as vramd plan prints them. */
import { current, t } from './i18n.js';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
const UNKNOWN = '–';

export function bytes(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return UNKNOWN;
  const sign = n < 0 ? '−' : '';
  let v = Math.abs(n), u = 0;
  while (v >= 1024 && u < UNITS.length - 1) {
    v /= 1024;
    u++;
  }
  return `${sign}${u ? v.toFixed(1) : Math.round(v)} ${UNITS[u]}`;
}

export function count(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return UNKNOWN;
  return Math.round(n).toLocaleString('en-US');
}

export function number(n, digits = 1) {
  if (n === null || n === undefined || !Number.isFinite(n)) return UNKNOWN;
  return n.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/* A rate or a mean: three digits that matter. */
export function rate(n) {
  if (n === null || n === undefined || !Number.isFinite(n)) return UNKNOWN;
  return n >= 100 || n === 0 ? count(n) : number(n, n >= 10 ? 1 : 2);
}

export function percent(share, digits = 0) {
  return share === null || share === undefined || !Number.isFinite(share) ? UNKNOWN : `${number(share * 100, digits)} %`;
}

/* Seconds, from microseconds to hours. */
export function duration(s) {
  if (s === null || s === undefined || !Number.isFinite(s)) return UNKNOWN;
  if (s < 0.001) return `${number(s * 1e6, 0)} µs`;
  if (s < 1) return `${number(s * 1e3, s < 0.1 ? 1 : 0)} ms`;
  if (s < 100) return `${number(s, s < 10 ? 2 : 1)} s`;
  if (s < 6000) return `${number(s / 60, 1)} min`;
  return `${number(s / 3600, 1)} h`;
}

export function clock(ms) {
  return new Date(ms).toLocaleTimeString(current() === 'zh' ? 'zh-CN' : 'en-GB');
}

/* "24GiB", "1.5 G", "800000000": bytes; NaN where it is none of them. */
export function parse_bytes(text) {
  const m = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*$/i.exec(text);
  if (!m) return NaN;
  return Math.round(Number(m[1]) * 1024 ** ' kmgt'.indexOf(m[2].toLowerCase() || ' '));
}

/* A name that the server gives, as a word of the page where there is one. */
export function word(prefix, name) {
  const key = `${prefix}_${name}`;
  const text = t(key);
  return text === key ? name : text;
}
