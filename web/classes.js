/* Classes of the ledger: each has a colour of its own in the style sheet. */
const KNOWN = new Set(['weights', 'experts', 'kv', 'state', 'activations', 'logits', 'workspace', 'context', 'tokenizer', 'grammar', 'scheduler', 'requests',
  'http', 'runtime', 'loading']);

export function chart_class(name) {
  return `c-${KNOWN.has(name) ? name : 'runtime'}`;
}
