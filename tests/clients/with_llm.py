# pip: llm==0.36
"""Simon Willison's llm: the command line with a model of extra-openai-models.yaml."""

import os
import subprocess
import sys
import tempfile

from checks import MODEL, URL, run


def llm(*args):
    with tempfile.TemporaryDirectory() as home:
        with open(os.path.join(home, "extra-openai-models.yaml"), "w") as f:
            f.write(f"- model_id: vramd\n  model_name: {MODEL}\n  api_base: {URL}/v1\n  supports_schema: true\n")
        env = {**os.environ, "LLM_USER_PATH": home, "OPENAI_API_KEY": "none"}
        r = subprocess.run([os.path.join(os.path.dirname(sys.executable), "llm"), *args], env=env, capture_output=True,
                           text=True, timeout=120)
    assert r.returncode == 0, r.stderr[-2000:]
    return r.stdout


def check_a_prompt_whole_and_as_a_stream():
    args = ("-m", "vramd", "-o", "temperature", "0", "-o", "max_tokens", "20", "Who are you?")
    assert llm(*args) == llm("--no-stream", *args) != ""


def check_a_schema():
    import json
    out = llm("-m", "vramd", "-o", "temperature", "0", "--schema", "name, age int", "Ada is 36 years old.")
    assert set(json.loads(out)) == {"name", "age"}


run(globals())
