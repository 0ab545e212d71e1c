/* Elements made and filled. Every text becomes a text node: nothing that a server or a model says is
 * read as HTML. Words that stand still carry their key in data-t, so that a change of language finds them. */
import { t } from './i18n.js';

const SVG = 'http://www.w3.org/2000/svg';

/* Attributes whose value is the key of a text, and the attribute that shows it. */
const TEXT_OF = { tLabel: 'aria-label', tTitle: 'title', tHint: 'placeholder' };

function set(el, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name === 't') {
    el.dataset.t = value;
    el.textContent = t(value);
  } else if (TEXT_OF[name]) {
    el.dataset[name] = value;
    el.setAttribute(TEXT_OF[name], t(value));
  } else if (name === 'on') {
    for (const [event, run] of Object.entries(value)) el.addEventListener(event, run);
  } else if (name === 'class') {
    el.setAttribute('class', value);
  } else if (name === 'value' || name === 'checked' || name === 'disabled' || name === 'open') {
    el[name] = value;
  } else {
    el.setAttribute(name, value === true ? '' : String(value));
  }
}

function fill(el, props, children) {
  for (const [name, value] of Object.entries(props || {})) set(el, name, value);
  for (const child of children.flat()) if (child !== null && child !== undefined && child !== false) el.append(child);
  return el;
}

/* h('p', {class: 'note', t: 'key'}, children...): strings among the children become text nodes. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

/* Writes only what differs: no layout and no announcement for a text that stays. */
export function say(el, text) {
  const s = text === null || text === undefined ? '' : String(text);
  if (el.textContent !== s) el.textContent = s;
}

/* A text that follows a change of language. */
export function say_key(el, key) {
  set(el, 't', key);
}

export function attr(el, name, value) {
  if (value === null || value === false) el.removeAttribute(name);
  else if (el.getAttribute(name) !== String(value)) el.setAttribute(name, value);
}

export function show(el, visible) {
  if (el.hidden === Boolean(visible)) el.hidden = !visible;
}

/* A custom property or a length; through the CSSOM, which a strict policy allows. */
export function style(el, name, value) {
  if (el.style.getPropertyValue(name) !== value) el.style.setProperty(name, value);
}

/* The texts below root in the present language. */
export function translate(root) {
  for (const el of root.querySelectorAll('[data-t]')) el.textContent = t(el.dataset.t);
  for (const [prop, name] of Object.entries(TEXT_OF)) {
    const data = prop.replace(/[A-Z]/g, (c) => '-' + c.toLowerCase());
    for (const el of root.querySelectorAll(`[data-${data}]`)) el.setAttribute(name, t(el.dataset[prop]));
  }
}

/* Rows of a list that change in place: one element for each key, made once, in the order of items. */
export function keyed(parent, items, key_of, make, update) {
  const old = parent.keyed || new Map();
  const now = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const key = key_of(item);
    const row = old.get(key) || make(item);
    now.set(key, row);
    old.delete(key);
    update(row, item);
    if (row === at) at = at.nextSibling;
    else parent.insertBefore(row, at);
  }
  for (const row of old.values()) row.remove();
  parent.keyed = now;
}

let n_ids = 0;
function new_id(prefix) {
  return `${prefix}-${++n_ids}`;
}

/* A part of a view with a heading (a key), and beside it what aside says. */
export function card(cls, title, aside, ...children) {
  const id = new_id('h');
  return h('section', { class: `card ${cls}`, 'aria-labelledby': id }, h('header', {}, h('h2', { id, t: title }), aside), children);
}

/* A table's heads (keys): the first n_texts columns are texts, the rest numbers. */
export function heads(names, n_texts = 1) {
  return h('thead', {}, h('tr', {}, names.map((name, i) => h('th', { scope: 'col', class: i < n_texts ? '' : 'n', t: name }))));
}

/* What scrolls by itself where the screen is narrow: a table that is named. */
export function wide(label, ...children) {
  return h('div', { class: 'scroll', tabindex: '0', role: 'region', tLabel: label }, h('table', { class: 'classes', tLabel: label }, children));
}

/* A labelled control: the label's text is a key. */
export function field(label, control, note) {
  const id = control.id || new_id('f');
  control.id = id;
  const parts = [h('label', { for: id, t: label }), control];
  if (note) {
    note.id = note.id || new_id('n');
    control.setAttribute('aria-describedby', note.id);
    parts.push(note);
  }
  return h('div', { class: 'field' }, parts);
}

/* A button that copies what text() gives, and says so for a moment. */
export function copy_button(label, text, cls = 'quiet') {
  const b = h('button', { type: 'button', class: cls, t: label });
  let timer = 0;
  b.addEventListener('click', async () => {
    const done = await copy(text());
    b.textContent = t(done ? 'copied' : 'copy_failed');
    clearTimeout(timer);
    timer = setTimeout(() => { b.textContent = t(label); }, 1500);
  });
  return b;
}

/* navigator.clipboard is there on https and localhost alone. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h('textarea', { class: 'away', 'aria-hidden': 'true', tabindex: '-1' });
    const focus = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    if (focus) focus.focus();
    return done;
  }
}
