/* Requests to the server that this page came from, and to no other. The key, where the server wants one,
 * is kept in sessionStorage: it ends with the tab. */
const KEY = 'vramd.key';

export class Refusal extends Error {
  /* status 0: no answer at all */
  constructor(status, message, param, retry_s) {
    super(message);
    this.status = status;
    this.param = param || null;
    this.retry_s = retry_s || 0;
  }
}

export function key() {
  try {
    return sessionStorage.getItem(KEY) || '';
  } catch {
    return '';
  }
}

export function set_key(text) {
  try {
    if (text) sessionStorage.setItem(KEY, text);
    else sessionStorage.removeItem(KEY);
  } catch { /* not kept, then */ }
}

function options_of(method, body, signal, accept) {
  const headers = { Accept: accept };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  return { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), cache: 'no-store' };
}

async function refusal_of(r) {
  let said = {};
  try {
    said = (await r.json()).error || {};
  } catch { /* a proxy's page, perhaps */ }
  return new Refusal(r.status, said.message || `HTTP ${r.status}`, said.param, Number(r.headers.get('Retry-After')) || 0);
}

async function ask(path, method, body, signal, accept) {
  let r;
  try {
    r = await fetch(path, options_of(method, body, signal, accept));
  } catch (e) {
    if (e.name === 'AbortError') throw e;
    throw new Refusal(0, String(e.message || e));
  }
  if (!r.ok) throw await refusal_of(r);
  return r;
}

export async function get(path, signal) {
  return (await ask(path, 'GET', undefined, signal, 'application/json')).json();
}

export async function post(path, body, signal) {
  return (await ask(path, 'POST', body, signal, 'application/json')).json();
}

export async function put(path, body, signal) {
  return (await ask(path, 'PUT', body, signal, 'application/json')).json();
}

/* One event of a stream: its name and the text of its data. A comment is a heartbeat: name 'beat'. */
function parse_event(text) {
  let name = 'message', data = null, only_comment = true;
  for (const line of text.split('\n')) {
    if (line.startsWith(':')) continue;
    only_comment = false;
    if (line.startsWith('event:')) name = line.slice(6).trim();
    else if (line.startsWith('data:')) data = (data === null ? '' : data + '\n') + line.slice(line[5] === ' ' ? 6 : 5);
  }
  return only_comment ? { name: 'beat', data: '' } : { name, data: data === null ? '' : data };
}

/* Reads server-sent events until the server ends the stream or signal is set. EventSource cannot send a key.
 * on_event({name, data}); the promise ends with the stream. */
export async function stream(path, { body, signal, on_open, on_event }) {
  const r = await ask(path, body === undefined ? 'GET' : 'POST', body, signal, 'text/event-stream');
  if (on_open) on_open(r);
  const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (e) {
      if (e.name === 'AbortError' || (signal && signal.aborted)) throw e;
      throw new Refusal(0, String(e.message || e));
    }
    if (part.done) return;
    rest += part.value.replace(/\r/g, '');
    const events = rest.split('\n\n');
    rest = events.pop();
    for (const e of events) if (e) on_event(parse_event(e));
  }
}
