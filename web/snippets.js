/* A request as curl and as openai code, to be pasted. The key is never in them: they name where it is expected. */

/* What the openai package takes by name; the rest goes into extra_body. */
const OF_OPENAI = new Set(['model', 'messages', 'prompt', 'max_tokens', 'temperature', 'top_p', 'presence_penalty', 'frequency_penalty', 'seed', 'stop',
  'tools', 'tool_choice', 'response_format', 'logprobs', 'top_logprobs', 'stream', 'stream_options']);

export function curl_of(origin, path, body, keyed) {
  const json = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const key = keyed ? ` \\\n  -H "Authorization: Bearer $VRAMD_API_KEY"` : '';
  return `curl ${origin}/${path} \\\n  -H 'Content-Type: application/json'${key} \\\n  -d '${json}'\n`;
}

/* JSON as a Python literal. */
function python_literal(v, indent = '') {
  const deeper = `${indent}    `;
  if (v === null) return 'None';
  if (v === true) return 'True';
  if (v === false) return 'False';
  if (Array.isArray(v)) return v.length ? `[\n${v.map((x) => deeper + python_literal(x, deeper)).join(',\n')},\n${indent}]` : '[]';
  if (typeof v === 'object') {
    const members = Object.entries(v).map(([k, x]) => `${deeper}${JSON.stringify(k)}: ${python_literal(x, deeper)}`);
    return members.length ? `{\n${members.join(',\n')},\n${indent}}` : '{}';
  }
  return JSON.stringify(v);
}

export function python_of(origin, path, body, keyed) {
  const own = {}, extra = {};
  for (const [k, v] of Object.entries(body)) (OF_OPENAI.has(k) ? own : extra)[k] = v;
  if (Object.keys(extra).length) own.extra_body = extra;
  const args = Object.entries(own).map(([k, v]) => `    ${k}=${python_literal(v, '    ')},\n`).join('');
  const chat = path.includes('chat');
  const text = chat ? 'chunk.choices[0].delta.content or ""' : 'chunk.choices[0].text';
  const use = body.stream
    ? `for chunk in answer:\n    if chunk.choices:\n        print(${text}, end="", flush=True)\n`
    : `print(answer.choices[0].${chat ? 'message.content' : 'text'})\n`;
  return `${keyed ? 'import os\n\n' : ''}from openai import OpenAI\n\nclient = OpenAI(base_url="${origin}/v1", `
    + `api_key=${keyed ? 'os.environ["VRAMD_API_KEY"]' : '"none"'})\nanswer = client.${chat ? 'chat.completions' : 'completions'}.create(\n${args})\n${use}`;
}
