/* The playground's parameters: a form, and the members of a request's body that it makes. What is left empty is
 * left out, so that the server's own defaults hold. */
import { field, h, show } from './dom.js';
import { t } from './i18n.js';

/* name of the parameter: the attributes of its control */
const NUMBERS = {
  max_tokens: { min: 1, step: 1, value: '256' },
  temperature: { min: 0, max: 2, step: 0.05 },
  top_p: { min: 0, max: 1, step: 0.01 },
  top_k: { min: -1, step: 1 },
  min_p: { min: 0, max: 1, step: 0.01 },
  repetition_penalty: { min: 0.01, max: 10, step: 0.05 },
  presence_penalty: { min: -2, max: 2, step: 0.1 },
  frequency_penalty: { min: -2, max: 2, step: 0.1 },
  seed: { step: 1 },
};

const EXAMPLE_TOOL = [{ type: 'function', function: { name: 'get_weather', description: 'The weather of a city.',
  parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } } }];
const EXAMPLE_SCHEMA = { type: 'object', properties: { name: { type: 'string', maxLength: 40 }, age: { type: 'integer' } },
  required: ['name', 'age'], additionalProperties: false };

export class Mistake extends Error {}

function number_fields(names) {
  const inputs = {}, fields = [];
  for (const name of names) {
    inputs[name] = h('input', { type: 'number', id: `play-${name}`, tHint: 'default', inputmode: 'decimal', ...NUMBERS[name] });
    const f = field(name, inputs[name]); /* parameters keep their names in every language */
    f.firstChild.classList.add('mono');
    fields.push(f);
  }
  return { inputs, el: h('div', { class: 'grid2' }, fields) };
}

/* A text of JSON with a button that puts an example there. */
function json_area(label, example, rows) {
  const area = h('textarea', { id: `play-${label}`, rows, spellcheck: 'false', autocomplete: 'off' });
  const fill = h('button', { type: 'button', class: 'quiet small', t: 'example' });
  const clear = h('button', { type: 'button', class: 'quiet small', t: 'clear' });
  const set = (text) => {
    area.value = text;
    area.dispatchEvent(new Event('input', { bubbles: true }));
  };
  fill.addEventListener('click', () => set(JSON.stringify(example, null, 1)));
  clear.addEventListener('click', () => set(''));
  const read = () => {
    if (!area.value.trim()) {
      area.removeAttribute('aria-invalid');
      return null;
    }
    try {
      const v = JSON.parse(area.value);
      area.removeAttribute('aria-invalid');
      return v;
    } catch (e) {
      area.setAttribute('aria-invalid', 'true');
      throw new Mistake(`${t(label)}: ${e.message}`);
    }
  };
  return { el: h('div', {}, field(label, area), h('div', { class: 'row after' }, fill, clear)), read, area };
}

function check(label, on) {
  const box = h('input', { type: 'checkbox', id: `play-${label}`, checked: on });
  return { el: h('div', { class: 'check' }, box, h('label', { for: box.id, t: label })), box };
}

export function settings_form() {
  const model = h('select', { id: 'play-model' }), model_field = field('model', model);
  const system = h('textarea', { rows: 2, id: 'play-system' }), system_field = field('system_prompt', system);
  const usual = number_fields(['max_tokens', 'temperature', 'top_p', 'top_k']);
  const more = number_fields(['min_p', 'repetition_penalty', 'presence_penalty', 'frequency_penalty', 'seed']);
  const stop = h('input', { type: 'text', autocomplete: 'off' });
  const shades = check('shade_logprobs', true);
  const tools = json_area('tools', EXAMPLE_TOOL, 4), schema = json_area('json_schema', EXAMPLE_SCHEMA, 4);
  const choice = h('select', { id: 'play-choice' }, ['auto', 'required', 'none'].map((v) => h('option', { value: v }, v)));
  const structure = h('details', {}, h('summary', { t: 'tools_and_schema' }), h('div', { class: 'side' }, tools.el, field('tool_choice', choice), schema.el));
  const el = h('form', { class: 'card side', tLabel: 'parameters' }, model_field, system_field, usual.el, shades.el,
    h('details', {}, h('summary', { t: 'more_sampling' }), h('div', { class: 'side' }, more.el, field('stop_text', stop))), structure);
  el.addEventListener('submit', (e) => e.preventDefault());

  const set_models = (models) => {
    const names = models.map((m) => m.id).join('\n');
    if (model.dataset.names === names) return;
    const was = model.value;
    model.dataset.names = names;
    model.replaceChildren(...models.map((m) => h('option', { value: m.id }, m.id)));
    if (models.some((m) => m.id === was)) model.value = was;
    show(model_field, models.length > 0);
  };
  const numbers = () => {
    const body = {};
    for (const [name, input] of Object.entries({ ...usual.inputs, ...more.inputs })) {
      if (input.value === '') {
        if (input.validity.badInput) throw new Mistake(`${name}: ${input.validationMessage}`);
        continue;
      }
      if (!input.checkValidity()) throw new Mistake(`${name}: ${input.validationMessage}`);
      body[name] = Number(input.value);
    }
    if (stop.value) body.stop = stop.value;
    return body;
  };
  /* The body's members for a chat or a completion, without prompt and messages. */
  const read = (chat) => {
    const body = { model: model.value, ...numbers() };
    if (chat) {
      const list = tools.read(), s = schema.read();
      if (list) Object.assign(body, { tools: list, tool_choice: choice.value });
      if (s) body.response_format = { type: 'json_schema', json_schema: { name: 'answer', schema: s } };
      if (shades.box.checked) Object.assign(body, { logprobs: true, top_logprobs: 5 });
    } else if (shades.box.checked) {
      body.logprobs = 5;
    }
    return body;
  };
  const set_mode = (chat) => {
    show(system_field, chat);
    show(structure, chat);
  };
  return { el, read, set_models, set_mode, system, model, tools: () => { try { return tools.read(); } catch { return null; } } };
}
