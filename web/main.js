/* Starts the page: frame, tabs, language, scheme, key, and the state of the server in words. */
import { forget_colours } from './colours.js';
import { attr, field, h, say, show, svg, translate } from './dom.js';
import { connect, feed, listen, tick } from './feed.js';
import { clock } from './format.js';
import * as i18n from './i18n.js';
import { memory_view } from './memory.js';
import { key, set_key } from './net.js';
import { planner_view } from './planner.js';
import { playground_view } from './playground.js';
import { throughput_view } from './throughput.js';

const { t } = i18n;
const THEME = 'vramd.theme', THEMES = ['auto', 'light', 'dark'];
const ICONS = {
  auto: 'M12 3a9 9 0 1 0 0 18V3z M12 3a9 9 0 0 1 0 18',
  light: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z M12 2v2 M12 20v2 M2 12h2 M20 12h2 M5 5l1.5 1.5 M17.5 17.5L19 19 M19 5l-1.5 1.5 M6.5 17.5L5 19',
  dark: 'M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z',
  docs: 'M5 4h10a4 4 0 0 1 4 4v12H8a3 3 0 0 1-3-3z M5 17a3 3 0 0 1 3-3h11 M9 8h6',
  key: 'M15 9a4 4 0 1 0-3.6 4L13 14.6h2v2h2v2h3v-3l-5.2-5.2',
  language: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z M3 12h18 M12 3c3 3 3 15 0 18 M12 3c-3 3-3 15 0 18',
};
const $ = (id) => document.getElementById(id);
const views = { memory: memory_view, throughput: throughput_view, playground: playground_view, planner: planner_view };
const NAMES = Object.keys(views);
let open = 'memory', asked = false; /* asked: for a key, since one is needed */

const icon = (name) => svg('svg', { viewBox: '0 0 24 24', 'aria-hidden': 'true' }, svg('path', { d: ICONS[name] }));

/* ---- tabs ---- */

function show_view(name, focus) {
  open = NAMES.includes(name) ? name : 'memory';
  for (const n of NAMES) {
    const tab = $(`tab-${n}`), on = n === open;
    attr(tab, 'aria-selected', String(on));
    tab.tabIndex = on ? 0 : -1;
    show($(`panel-${n}`), on);
    if (on && focus) tab.focus();
  }
  if (location.hash !== `#${open}`) history.replaceState(null, '', `#${open}`);
  draw();
  if (views[open].opened) views[open].opened();
}

function make_views() {
  const tabs = $('tabs');
  for (const name of NAMES) {
    views[name] = views[name]();
    const on = { click: () => show_view(name) };
    tabs.append(h('button', { type: 'button', role: 'tab', id: `tab-${name}`, 'aria-controls': `panel-${name}`, t: `view_${name}`, on }));
    $('main').append(h('div', { role: 'tabpanel', id: `panel-${name}`, 'aria-labelledby': `tab-${name}`, hidden: true }, views[name].el));
  }
  tabs.addEventListener('keydown', (e) => {
    const at = NAMES.indexOf(open), n = NAMES.length;
    const next = { ArrowRight: (at + 1) % n, ArrowLeft: (at + n - 1) % n, Home: 0, End: n - 1 }[e.key];
    if (next === undefined) return;
    e.preventDefault();
    show_view(NAMES[next], true);
  });
  window.addEventListener('hashchange', () => show_view(location.hash.slice(1)));
  document.querySelector('.skip').addEventListener('click', (e) => {
    e.preventDefault();
    $('main').focus();
  });
}

/* ---- the server's state ---- */

function banner_text(seconds) {
  const p = feed.phase;
  if (p === 'ready' || p === 'connecting' || p === 'key') return null;
  const seen = feed.seen_at ? t('seen_at', { time: clock(feed.seen_at) }) : '';
  return [t(`banner_${p}`), [feed.note, seen, seconds > 0 ? t('again_in', { n: seconds }) : ''].filter(Boolean).join(' · ')];
}

function draw_state() {
  const p = feed.phase, live = ['ready', 'loading', 'stalled', 'draining'].includes(p);
  const seconds = live || p === 'off' || p === 'key' ? 0 : Math.ceil((feed.retry_at - Date.now()) / 1000);
  const tone = { ready: 'live', stalled: 'loading', failed: 'gone', off: 'gone', busy: 'gone' }[p] || p;
  const status = $('status'), banner = $('banner'), said = banner_text(seconds);
  say(status, t(`phase_${p}`));
  attr(status, 'class', `pill ${tone}`);
  show(banner, said);
  attr(banner, 'class', `banner ${tone}`);
  if (said && banner.textContent !== said.join('')) banner.replaceChildren(h('strong', {}, said[0]), h('span', {}, said[1]));
  show($('docs'), feed.account && feed.account.docs);
  say($('model'), feed.models.length ? feed.models.map((m) => m.id).join(', ') : '');
  attr($('model'), 'title', feed.account ? `vramd ${feed.account.version || ''}` : null);
  $('main').classList.toggle('stale', !live && p !== 'connecting');
  if (p === 'key' && !asked) ask_key();
  asked = p === 'key';
}

function draw() {
  draw_state();
  views[open].update(feed);
  if (views[open].opened) views[open].opened();
}

/* ---- the key ---- */

let dialog = null;

function ask_key() {
  const wanted = feed.phase === 'key';
  show($('key'), wanted || key());
  if (dialog) return;
  const input = h('input', { type: 'password', id: 'key-text', autocomplete: 'off', spellcheck: 'false', placeholder: 'vk-…', value: '' });
  const said = h('p', { class: key() ? 'bad' : 'note', role: 'alert' }, key() && wanted ? t('key_wrong') : t('key_note'));
  const forget = key() ? h('button', { type: 'button', class: 'quiet', t: 'key_forget', on: { click: () => use_key('') } }) : null;
  const form = h('form', { method: 'dialog', 'aria-labelledby': 'key-h' }, h('h2', { id: 'key-h', t: 'key_title' }), said, field('key_label', input),
    h('div', { class: 'row' }, h('button', { type: 'submit', class: 'primary', t: 'key_use' }), forget));
  form.addEventListener('submit', (e) => {
    e.preventDefault();
    if (input.value.trim()) use_key(input.value.trim());
  });
  dialog = h('dialog', { 'aria-labelledby': 'key-h' }, form);
  dialog.addEventListener('close', close_key);
  document.body.append(dialog);
  dialog.showModal();
  input.focus();
}

function close_key() {
  if (dialog) dialog.remove();
  dialog = null;
}

function use_key(text) {
  set_key(text);
  feed.models = [];
  feed.phase = 'connecting';
  close_key();
  show($('key'), text);
  draw();
  connect();
}

/* ---- language and scheme ---- */

function set_language() {
  const other = i18n.current() === 'zh' ? 'en' : 'zh';
  translate(document);
  $('language').replaceChildren(icon('language'), h('span', { class: 'visually-hidden', lang: other === 'zh' ? 'zh-Hans' : 'en' }, i18n.LANGUAGES[other]));
  attr($('language'), 'title', i18n.LANGUAGES[other]);
  set_theme_label();
  attr($('key'), 'aria-label', t('key_title'));
  if (views.planner.redraw) views.planner.redraw();
}

function theme() {
  return document.documentElement.dataset.theme || 'auto';
}

function set_theme_label() {
  $('theme').replaceChildren(icon(theme()));
  attr($('theme'), 'aria-label', t('theme_is', { theme: t(`theme_${theme()}`) }));
  attr($('theme'), 'title', t('theme_is', { theme: t(`theme_${theme()}`) }));
}

function set_theme(name) {
  if (name === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  set_theme_label();
  forget_colours();
  if (views.memory.recolour) views.memory.recolour();
}

function keep_theme(name) {
  set_theme(name);
  try {
    localStorage.setItem(THEME, name);
  } catch { /* for this visit alone */ }
}

function kept_theme() {
  try {
    return THEMES.includes(localStorage.getItem(THEME)) ? localStorage.getItem(THEME) : 'auto';
  } catch {
    return 'auto';
  }
}

function begin() {
  i18n.begin();
  make_views();
  for (const name of ['key', 'docs']) $(name).append(icon(name));
  $('key').addEventListener('click', ask_key);
  show($('key'), key());
  $('language').addEventListener('click', () => {
    i18n.remember(i18n.current() === 'zh' ? 'en' : 'zh');
    set_language();
    draw();
  });
  $('theme').addEventListener('click', () => keep_theme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => set_theme(theme()));
  set_theme(kept_theme());
  set_language();
  listen(draw);
  show_view(location.hash.slice(1));
  connect();
  setInterval(tick, 1000); /* ages, and the seconds to the next attempt */
}

begin();
