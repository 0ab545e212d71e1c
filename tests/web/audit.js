/* What is wrong with the page for people who cannot see it, or not well: run in the page by browser.py.
 * Contrast is computed as WCAG 2.2 defines it, for every text that is seen, against what lies behind it. */
function audit() {
  const found = [];
  const brush = document.createElement('canvas').getContext('2d', { willReadFrequently: true });

  /* Any colour that CSS can name, as [r, g, b, a] of 0 to 255. */
  function rgba(text) {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = text;
    brush.fillRect(0, 0, 1, 1);
    return [...brush.getImageData(0, 0, 1, 1).data];
  }

  function over(top, below) {
    const a = top[3] / 255;
    return [0, 1, 2].map((i) => top[i] * a + below[i] * (1 - a)).concat(255);
  }

  function luminance(c) {
    const [r, g, b] = c.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  function ratio(a, b) {
    const [x, y] = [luminance(a), luminance(b)];
    return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
  }

  function behind(el) {
    const layers = [];
    for (let e = el; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), rgba('white'));
  }

  const label_of = (el) => `<${el.tagName.toLowerCase()} class="${el.getAttribute('class') || ''}" id="${el.id}"> ${el.textContent.trim().slice(0, 40)}`;
  const seen = (el) => el.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !el.closest('.visually-hidden, .skip, .away');

  function check_text(el) {
    const s = getComputedStyle(el), size = parseFloat(s.fontSize), large = size >= 24 || (size >= 18.66 && Number(s.fontWeight) >= 700);
    const back = behind(el), r = ratio(over(rgba(s.color), back), back);
    if (r < (large ? 3 : 4.5)) found.push(`contrast ${r.toFixed(2)} of ${label_of(el)}`);
  }

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const el = walker.currentNode.parentElement;
    if (walker.currentNode.data.trim() && seen(el) && !el.closest('button:disabled, option, script, noscript')) check_text(el);
  }
  for (const el of document.querySelectorAll('input, select, textarea')) {
    if (!seen(el) || el.type === 'range' || el.disabled) continue;
    if (el.type !== 'radio' && el.type !== 'checkbox') {
      check_text(el);
      const back = behind(el.parentElement), r = ratio(rgba(getComputedStyle(el).borderTopColor), back);
      if (r < 3) found.push(`border ${r.toFixed(2)} of ${label_of(el)}`);
    }
  }
  for (const el of document.querySelectorAll('.swatch:not(.b-free, .b-kv, .b-cached), .meter > i, .pill')) {
    if (!seen(el)) continue;
    const back = behind(el.parentElement), r = ratio(rgba(getComputedStyle(el)[el.classList.contains('pill') ? 'color' : 'backgroundColor']), back);
    if (r < 3 && !el.classList.contains('c-cached')) found.push(`graphic ${r.toFixed(2)} of ${label_of(el)}`);
  }

  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  for (const id of new Set(ids.filter((v, i) => ids.indexOf(v) !== i))) found.push(`id ${id} is there twice`);
  for (const name of ['aria-controls', 'aria-labelledby', 'aria-describedby', 'for'])
    for (const el of document.querySelectorAll(`[${name}]`))
      for (const id of el.getAttribute(name).split(' ')) if (!document.getElementById(id)) found.push(`${name}=${id} of ${label_of(el)} leads nowhere`);
  for (const el of document.querySelectorAll('[tabindex]')) if (el.tabIndex > 0) found.push(`tabindex ${el.tabIndex} of ${label_of(el)}`);
  for (const el of document.querySelectorAll('[aria-hidden=true]'))
    if (el.querySelector('a[href], button, input, [tabindex="0"]')) found.push(`what can have the focus is hidden: ${label_of(el)}`);
  for (const el of document.querySelectorAll('img')) if (!el.hasAttribute('alt')) found.push(`image without alt: ${label_of(el)}`);
  for (const th of document.querySelectorAll('th')) if (!th.scope) found.push(`th without scope: ${label_of(th)}`);

  const levels = [...document.querySelectorAll('h1, h2, h3, h4')].filter(seen).map((e) => Number(e.tagName[1]));
  if (levels.filter((l) => l === 1).length !== 1) found.push('not just one h1');
  levels.forEach((l, i) => { if (i && l > levels[i - 1] + 1) found.push(`heading of level ${l} after ${levels[i - 1]}`); });
  for (const [what, n] of [['main', 1], ['header.top', 1], ['[role=tablist]', 1], ['[role=tab][aria-selected=true]', 1], ['[role=tabpanel]:not([hidden])', 1]])
    if (document.querySelectorAll(what).length !== n) found.push(`not just ${n} of ${what}`);
  if (!document.documentElement.lang) found.push('no language');
  if (!document.title) found.push('no title');

  /* Touch targets of 24 pixels (WCAG 2.2, 2.5.8), but for what stands in a line of text. */
  for (const el of document.querySelectorAll('button, input, select, summary, [role=tab]')) {
    const b = el.getBoundingClientRect();
    if (seen(el) && !el.closest('th, .segments, .check') && (b.width < 24 || b.height < 24)) found.push(`target of ${b.width.toFixed(0)} x ${b.height.toFixed(0)}: ${label_of(el)}`);
  }
  return found;
}
