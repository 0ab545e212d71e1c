/* The page's language: which one, and its texts. A text may have {names} that are filled in. */
import { en } from './words_en.js';
import { zh } from './words_zh.js';

const WORDS = { en, zh };
const STORED = 'vramd.language';
let language = 'en';

export const LANGUAGES = { en: 'English', zh: '中文' };

export function current() {
  return language;
}

export function t(key, vars) {
  const text = WORDS[language][key] ?? WORDS.en[key] ?? key;
  return vars ? text.replace(/\{(\w+)\}/g, (all, name) => (name in vars ? vars[name] : all)) : text;
}

/* Whether the texts have it: names that the server gives may be unknown here. */
export function has(key) {
  return key in WORDS.en;
}

function kept() {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null; /* storage may be forbidden */
  }
}

function choose(name) {
  language = WORDS[name] ? name : 'en';
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
