/* The page's language: which one, and its texts. A text may have {names} that are filled in. */
import { words } from './words.js';

const STORED = 'vramd.language';
let language = 'en';

export const LANGUAGES = { en: 'English', zh: '中文' }; /* as the texts have them */

export function current() {
  return language;
}

export function t(key, vars) {
  const text = has(key) ? words[key][language === 'zh' ? 1 : 0] : key;
  return vars ? text.replace(/\{(\w+)\}/g, (all, name) => (name in vars ? vars[name] : all)) : text;
}

/* Whether the texts have it: names that the server gives may be unknown here. */
export function has(key) {
  return key in words;
}

function kept() {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null; /* storage may be forbidden */
  }
}

function choose(name) {
  language = name === 'zh' ? 'zh' : 'en';
  document.documentElement.lang = language === 'zh' ? 'zh-Hans' : 'en';
  document.title = t('title');
}

export function remember(name) {
  choose(name);
  try {
    localStorage.setItem(STORED, language);
  } catch { /* for this visit alone, then */ }
}

/* What was chosen before, else what the browser prefers. */
export function begin() {
  const prefers = (navigator.languages || [navigator.language || 'en']).find((l) => /^(zh|en)\b/i.test(l)) || 'en';
  choose(kept() || (/^zh/i.test(prefers) ? 'zh' : 'en'));
}
