/* The connection to the server: reads /v1/memory/stream, keeps the account, says in which phase the server is,
 * and tries again when it has gone. Views listen; none of them connects by itself. */
import { account_of, apply, point_of, points_of } from './account.js';
import { SPAN_MS } from './chart.js';
import { get, Refusal, stream } from './net.js';

const FIRST_WAIT_S = 1, LONGEST_WAIT_S = 10, SILENCE_MS = 40e3, POINT_MS = 2000, HIDDEN_MS = 60e3;

/* phase: connecting, loading, ready, stalled, draining, failed, gone, key (none or a wrong one), busy (no place
 * for one more page), off (no such stream) */
export const feed = { phase: 'connecting', note: '', retry_at: 0, seen_at: 0, account: null, points: [], models: [], places: null };

const listeners = new Set();
let control = null, wait_s = FIRST_WAIT_S, timer = 0, silence = 0, hidden = 0, origin = 0, frame = 0, learning = false;

export function listen(run) {
  listeners.add(run);
}

/* At once for a change of phase; else with the next picture of the screen. */
export function tell() {
  if (frame) return;
  frame = requestAnimationFrame(() => {
    frame = 0;
    for (const run of listeners) run(feed);
  });
  if (document.hidden) { /* no pictures then: the account is kept all the same */
    cancelAnimationFrame(frame);
    frame = 0;
  }
}

/* Seconds of the server's clock, now. */
export function server_now() {
  return (Date.now() - origin) / 1000;
}

function set_phase(phase, note) {
  feed.phase = phase;
  feed.note = note || '';
  tell();
}

function add_point(at) {
  const points = feed.points, last = points[points.length - 1], p = point_of(feed.account, at);
  if (last && at - last.at < POINT_MS) return;
  const queries = p.queries - (last ? last.queries : 0);
  p.prefix_hit_ratio = last && last.queries !== undefined && queries > 0 ? (p.hits - last.hits) / queries : null;
  p.preemptions = last && last.preemptions_total !== undefined ? p.preemptions_total - last.preemptions_total : 0;
  points.push(p);
  while (points.length && at - points[0].at > SPAN_MS) points.shift();
}

/* Each second: a server at rest sends nothing, and its line goes on. */
export function tick() {
  if (document.hidden) return;
  if (feed.account && ['ready', 'loading', 'stalled', 'draining'].includes(feed.phase)) add_point(Date.now());
  if (feed.phase === 'ready' && !feed.models.length && !learning) learn(feed.account.start);
  tell();
}

/* What does not change while the server runs. Of several models there is no one number of places. */
async function learn(start) {
  learning = true;
  try {
    feed.models = (await get('v1/models')).data || [];
    const props = feed.models.length > 1 ? {} : await get('props');
    if (feed.account && feed.account.start === start) feed.places = props.total_slots ?? null;
  } catch {
    feed.places = null; /* loading, or a model that generates nothing */
  }
  learning = false;
  tell();
}

function on_whole(whole) {
  const other = !feed.account || feed.account.start !== whole.start;
  if (other) feed.points = [];
  feed.account = account_of(whole);
  origin = Date.now() - whole.t * 1000;
  wait_s = FIRST_WAIT_S;
  set_phase(whole.state);
  if (other || !feed.models.length) learn(whole.start);
}

function on_delta(delta) {
  const before = feed.account.state;
  apply(feed.account, delta);
  if (delta.state) set_phase(delta.state);
  if (before === 'loading' && feed.account.state === 'ready') learn(feed.account.start);
}

/* Returns false after the last event. */
function on_event({ name, data }) {
  clearTimeout(silence);
  silence = setTimeout(() => control && control.abort('silence'), SILENCE_MS);
  feed.seen_at = Date.now();
  if (name === 'bye') return JSON.parse(data).why;
  if (name === 'whole') on_whole(JSON.parse(data));
  else if (name === 'history') feed.points = points_of(JSON.parse(data), origin);
  else if (name === 'delta' && feed.account) on_delta(JSON.parse(data));
  if (feed.account && name !== 'history') add_point(Date.now());
  tell();
  return null;
}

function phase_of(e) {
  if (e instanceof Refusal && e.status === 401) return 'key';
  if (e instanceof Refusal && e.status === 404) return 'off';
  if (e instanceof Refusal && e.status === 429) return 'busy';
  return 'gone';
}

function later(seconds) {
  feed.retry_at = Date.now() + seconds * 1000;
  clearTimeout(timer);
  timer = setTimeout(connect, seconds * 1000);
}

/* Connects, and again whenever the connection has ended, until a key is missing. */
export async function connect() {
  clearTimeout(timer);
  if (control) control.abort('again');
  const own = new AbortController();
  let why = null;
  control = own;
  try {
    await stream('v1/memory/stream', { signal: own.signal, on_event: (e) => { why = on_event(e) || why; } });
    if (control !== own) return;
    set_phase({ draining: 'draining', keys: 'connecting', off: 'off' }[why] || 'gone');
  } catch (e) {
    if (control !== own) return;
    set_phase(phase_of(e), e instanceof Refusal && e.status ? e.message : '');
    if (feed.phase === 'key') feed.account = null;
    if (e.retry_s) wait_s = Math.max(wait_s, Math.min(e.retry_s, LONGEST_WAIT_S));
  } finally {
    if (control === own) clearTimeout(silence);
  }
  if (feed.phase === 'key' || feed.phase === 'off') return;
  later(why === 'keys' ? 0 : wait_s);
  wait_s = Math.min(wait_s * 2, LONGEST_WAIT_S);
}

/* A page that nobody sees gives its place on the server back after a minute, and is there at once when it is seen. */
document.addEventListener('visibilitychange', () => {
  clearTimeout(hidden);
  if (document.hidden) {
    hidden = setTimeout(disconnect, HIDDEN_MS);
    return;
  }
  tell();
  if (!control || feed.phase === 'gone' || feed.phase === 'draining') connect();
});

/* A page that is left may be kept for the way back: without its connection. */
window.addEventListener('pagehide', disconnect);
window.addEventListener('pageshow', (e) => {
  if (e.persisted) connect();
});

function disconnect() {
  clearTimeout(timer);
  const own = control;
  control = null;
  if (own) own.abort('hidden');
}
