/* The server's account as the stream of /v1/memory gives it: a whole one, then what changes of it.
 * Plain data in, plain data out; no network, no elements. */

/* RFC 7386: objects are merged, other values replace. */
function merge(into, patch) {
  for (const [name, value] of Object.entries(patch)) {
    const old = into[name];
    if (value && typeof value === 'object' && !Array.isArray(value) && old && typeof old === 'object') merge(old, value);
    else into[name] = value;
  }
  return into;
}

/* Lists of /v1/memory come as objects whose keys name the element. */
function merge_list(list, patch, key_of) {
  for (const [key, change] of Object.entries(patch)) {
    const at = list.findIndex((e, i) => String(key_of(e, i)) === key);
    if (at >= 0) merge(list[at], change);
  }
}

function merge_ledger(ledger, patch) {
  const { classes, ...rest } = patch;
  if (classes) merge_list(ledger.classes, classes, (c) => c.class);
  merge(ledger, rest);
}

function merge_memory(memory, patch) {
  const { kv, device, models, sequences, ...rest } = patch;
  if (kv) {
    const { groups, ...plain } = kv;
    if (groups) merge_list(memory.kv.groups, groups, (g, i) => i);
    merge(memory.kv, plain);
  }
  if (device && memory.device) merge_ledger(memory.device, device);
  if (models && memory.models) merge_list(memory.models, models, (m) => m.id);
  merge_ledger(memory, rest);
}

/* age_s is given once, with the t at which it was so. */
function merge_sequences(list, change, at) {
  for (const s of change.set || []) {
    const old = list.find((o) => o.id === s.id);
    if (s.age_s !== undefined) s.age_at = at;
    if (old) Object.assign(old, s);
    else list.push(s);
  }
  const gone = new Set(change.gone || []);
  return gone.size ? list.filter((s) => !gone.has(s.id)) : list;
}

/* ---- the picture of blocks ---- */

/* One value for each cell: null is free. */
function cells_of(p) {
  return new Array(Math.ceil(p.n / p.stride)).fill(null);
}

function set_cells(cells, runs) {
  for (const [first, n, what] of runs) cells.fill(what === 'free' ? null : what, first, Math.min(first + n, cells.length));
}

function picture_of(p) {
  const made = { group: p.group, n: p.n, stride: p.stride, cells: cells_of(p) };
  set_cells(made.cells, p.cells);
  return made;
}

function merge_blocks(pictures, changes) {
  for (const c of changes) {
    const at = pictures.findIndex((p) => p.group === c.group);
    if (c.n !== undefined) {
      const made = picture_of({ stride: 1, ...c });
      if (at >= 0) pictures[at] = made;
      else pictures.push(made);
    } else if (at >= 0) {
      set_cells(pictures[at].cells, c.cells);
    }
  }
  pictures.sort((a, b) => a.group - b.group);
}

/* ---- the account ---- */

export function account_of(whole) {
  const a = { ...whole };
  for (const s of a.memory.sequences) s.age_at = a.t;
  a.blocks = (whole.blocks || []).map(picture_of);
  a.states = whole.states && whole.states.n ? picture_of(whole.states) : null;
  a.latency = whole.latency || [];
  a.history = [];
  return a;
}

export function apply(a, delta) {
  const { memory, sequences, rates, blocks, states, ...rest } = delta;
  if (memory) merge_memory(a.memory, memory);
  if (sequences) a.memory.sequences = merge_sequences(a.memory.sequences, sequences, delta.t);
  if (rates) merge(a.rates, rates);
  if (blocks) merge_blocks(a.blocks, blocks);
  if (states && states.n) a.states = picture_of(states); /* the first picture of a server may come later than its account */
  else if (states && a.states) set_cells(a.states.cells, states.cells);
  Object.assign(a, rest);
}

export function age_of(s, now_t) {
  return s.age_s === undefined || s.age_s === null ? null : s.age_s + Math.max(0, now_t - s.age_at);
}

/* The ledger whose budget can move and whose KV cache is shown: the device's, where there is one. */
export function ledger_of(memory) {
  return memory.device || memory;
}

/* ---- the last ten minutes ---- */

const COLUMNS = ['budget_bytes', 'plan_bytes', 'ledger_bytes', 'unaccounted_bytes', 'kv_free', 'kv_used', 'kv_cached', 'running', 'waiting',
  'preempted', 'prompt_tokens_per_s', 'generated_tokens_per_s', 'requests_per_s', 'prefix_hit_ratio', 'preemptions', 'ttft_p50_ms', 'ttft_p99_ms',
  'itl_p50_ms', 'itl_p99_ms'];

const cell = (column, i) => (Array.isArray(column) ? column[i] : column) ?? null;

/* Points of the event "history"; origin: the page's clock at the server's t = 0. */
export function points_of(history, origin) {
  const points = [];
  for (let i = 0; i < history.n; i++) {
    const p = { at: origin + cell(history.at, i) * 1000 };
    for (const name of COLUMNS) p[name] = cell(history[name], i);
    points.push(p);
  }
  return points;
}

/* The point of now, to go on from there. */
export function point_of(a, at) {
  const m = ledger_of(a.memory), kv = a.memory.kv || {}, r = a.rates, c = r.counts || {};
  const minute = a.latency.find((l) => l.window_s === 60) || a.latency[0] || {};
  const q = (l, name) => (l && l.n ? l[name] : null);
  return {
    at, budget_bytes: m.budget_bytes, plan_bytes: m.plan_bytes, ledger_bytes: m.ledger_bytes, unaccounted_bytes: m.unaccounted_bytes,
    kv_free: kv.free, kv_used: kv.used, kv_cached: kv.cached, running: r.running, waiting: r.waiting, preempted: r.preempted,
    prompt_tokens_per_s: r.prompt_tokens_per_s, generated_tokens_per_s: r.generated_tokens_per_s, requests_per_s: r.requests_per_s,
    ttft_p50_ms: q(minute.ttft_ms, 'p50'), ttft_p99_ms: q(minute.ttft_ms, 'p99'), itl_p50_ms: q(minute.itl_ms, 'p50'),
    itl_p99_ms: q(minute.itl_ms, 'p99'), preemptions_total: c.preemptions,
    queries: c.prefix_cache_queries, hits: c.prefix_cache_hits,
  };
}

/* Bytes of KV blocks in use and cached of all groups. */
export function kv_bytes(kv) {
  const sum = { all: 0, used: 0, cached: 0, free: 0 };
  for (const g of kv.groups || []) {
    sum.all += g.blocks * g.block_bytes;
    sum.used += g.used * g.block_bytes;
    sum.cached += g.cached * g.block_bytes;
    sum.free += g.free * g.block_bytes;
  }
  return sum;
}

/* Whether one more request of n tokens (prompt and answer) would fit: {verdict, need, free, blocks...}, bytes.
 * limits: {max_model_len, places}, null where not known. At admission a twentieth of the pool stays free. */
export function one_more(a, n, limits) {
  const kv = a.memory.kv || {}, groups = kv.groups || [];
  const g = groups.find((x) => !x.window && !x.tail) || groups[0];
  if (a.memory.models) return { verdict: 'several' };
  if (limits.max_model_len && n > limits.max_model_len) return { verdict: 'too_long' };
  if (!g) return { verdict: limits.places && a.rates.running >= limits.places ? 'wait_place' : 'none' };
  const tokens = g.window ? Math.min(n, g.window) : n;
  const blocks = Math.ceil(tokens / kv.block_tokens), open = g.free + g.cached;
  const running = a.rates.running, kept = running ? g.watermark : 0;
  const queued = a.memory.sequences.filter((s) => s.state !== 'running').reduce((sum, s) => sum + Math.ceil(s.tokens / kv.block_tokens) - s.blocks, 0);
  const r = { need: blocks * g.block_bytes, free: open * g.block_bytes, cached: g.cached * g.block_bytes, all: g.blocks * g.block_bytes,
    kept: kept * g.block_bytes };
  if (blocks > g.blocks) r.verdict = 'never';
  else if (blocks > open) r.verdict = 'wait_memory';
  else if (blocks + kept > open) r.verdict = 'wait_margin';
  else if (blocks + kept + queued > open) r.verdict = 'wait_queue';
  else if (limits.places && running >= limits.places) r.verdict = 'wait_place';
  else r.verdict = 'fits';
  return r;
}
