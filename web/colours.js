/* Colours for a canvas: what the style sheet's variables are in the present scheme. */
const SEQUENCES = 12;
const kept = new Map();
let probe = null;

export function forget_colours() {
  kept.clear();
}

export function colour(name) {
  if (!kept.has(name)) {
    if (!probe) {
      probe = document.createElement('i');
      probe.hidden = true;
      document.body.append(probe);
    }
    probe.style.color = `var(--${name})`;
    kept.set(name, getComputedStyle(probe).color);
  }
  return kept.get(name);
}

/* The name of a sequence's colour: neighbours by id differ. */
export function sequence_colour(id) {
  return `s${id % SEQUENCES}`;
}
