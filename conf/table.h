/* The one table of options. A new option is one row here, and its use.
 *
 * X(section, type, name, default, min, max, unit, help, values, aliases[, LIVE])
 *   type     STR (max: bytes), U32, U64, POW2 (a U32 that is a power of two), BOOL, ENUM
 *            (values: "a|b|c", stored as the index), BYTES (a U64 with a unit)
 *   help     a phrase without a capital and a final stop
 *   aliases  other flag spellings, space-separated, of vLLM and llama.cpp where they mean the
 *            same; those of up to three letters take one dash
 *   LIVE     SIGHUP changes it in a running daemon; without it, only a restart does */
#ifndef VRAMD_CONF_TABLE_H
#define VRAMD_CONF_TABLE_H

// clang-format off
#define OPTION_LIST(X)                                                                        \
    X("model", STR, model, "", 0, 255, "",                                                    \
      "GGUF file to serve (any part of a split one), or folder of safetensors", "", "m")                                \
    X("model", STR, served_model_name, "", 0, 255, "",                                        \
      "names that clients use, separated by commas; default: the name of the file", "",       \
      "alias")                                                                                \
    X("model", U32, max_model_len, 0, 0, 16777216, "tokens",                                  \
      "longest sequence, prompt and output; 0: what the model was trained for, at most 8192", \
      "", "ctx-size c")                                                                       \
    X("model", STR, pre_tokenizer, "", 0, 63, "",                                             \
      "name of the pre-tokenizer (tokenizer.ggml.pre), where the file names none or a wrong one", \
      "", "")                                                                                 \
    X("model", STR, chat_template, "", 0, 255, "",                                            \
      "chat template in place of the model's own: a file (Jinja), or NAME of "                \
      "tokenizer.chat_template.NAME in the model", "", "chat-template-file")                  \
    X("model", STR, chat_template_kwargs, "", 0, 511, "",                                     \
      "variables for the chat template of requests that do not give them: a JSON object", "", \
      "default-chat-template-kwargs")                                                         \
    X("model", BOOL, trust_request_chat_template, 0, 0, 1, "",                                \
      "take a chat_template in a request", "", "", LIVE)                                      \
    X("model", STR, strip_prompt_lines, "^x-anthropic-[a-z-]+:", 0, 255, "",                  \
      "lines of the system prompt of /v1/messages that are left out: a regular expression (PCRE2); " \
      "without a value: none", "", "")                                                        \
    X("model", ENUM, embeddings, 0, 0, 0, "",                                                 \
      "answer /v1/embeddings with hidden states; auto: of the last token, or as the model file says; " \
      "an encoder answers them in any case", "off|auto|last|mean|cls", "pooling")             \
    X("server", STR, host, "127.0.0.1", 0, 255, "",                                           \
      "address to listen on, or unix:/path", "", "")                                          \
    X("server", U32, port, 8000, 0, 65535, "",                                                \
      "TCP port; 0: any free one", "", "p")                                                   \
    X("server", U32, max_connections, 1024, 1, 1000000, "",                                   \
      "open connections", "", "")                                                             \
    X("server", BYTES, max_body, 4194304, 1024, 1073741824, "bytes",                          \
      "largest request body", "", "")                                                         \
    X("server", U32, idle_timeout, 60, 1, 86400, "s",                                         \
      "close a connection that is idle for this long", "", "timeout-keep-alive")              \
    X("server", U32, header_timeout, 10, 1, 3600, "s",                                        \
      "longest time until the headers of a request have arrived", "", "")                                       \
    X("server", U32, body_timeout, 60, 1, 3600, "s",                                          \
      "longest time until the body of a request has arrived", "", "")                                          \
    X("server", U32, request_timeout, 0, 0, 86400, "s",                                       \
      "deadline of a request that names none (timeout), and the most that it may name; 0: "   \
      "none", "", "", LIVE)                                                                   \
    X("server", U32, heartbeat, 15, 1, 3600, "s",                                             \
      "interval of comment lines in a silent stream", "", "")                                 \
    X("server", U32, stream_credits, 256, 1, 65536, "tokens",                                 \
      "tokens that may be generated ahead of a slow client before its request is paused; "     \
      "16 KiB of events at most", "", "") \
    X("server", U32, load_timeout, 300, 1, 86400, "s",                                        \
      "longest time for a request to wait for its model to be loaded, with sections [model NAME]", "", "") \
    X("server", U32, drain_grace, 0, 0, 3600, "s",                                            \
      "time after SIGTERM in which requests are still accepted while /health says 503, for "  \
      "balancers to notice", "", "", LIVE)                                                    \
    X("server", U32, drain_timeout, 30, 0, 86400, "s",                                        \
      "longest time for running requests to end after SIGTERM", "", "", LIVE)                        \
    X("server", STR, api_keys_file, "", 0, 255, "",                                           \
      "file of API keys and their limits, one per line (vramd key prints one); SIGHUP reads it again; " \
      "default: no key is required", "", "")                                                  \
    X("server", BOOL, metrics_auth, 0, 0, 1, "",                                              \
      "require a key for /metrics, too, where api_keys_file is set", "", "", LIVE)                           \
    X("server", STR, tls_cert, "", 0, 255, "",                                                \
      "certificate with its chain (PEM), which turns HTTPS on; SIGHUP reads it again", "", "ssl-certfile ssl-cert-file")   \
    X("server", STR, tls_key, "", 0, 255, "",                                                 \
      "private key of tls_cert (PEM, without a password)", "", "ssl-keyfile ssl-key-file")                                \
    X("server", STR, cors_origins, "", 0, 255, "",                                            \
      "origins whose web pages may send requests, separated by blanks, or *; default: none", "", "", LIVE) \
    X("server", STR, trusted_proxies, "", 0, 255, "",                                         \
      "gateways whose x-gateway-inference-fairness-id and x-llm-d-inference-fairness-id headers count: addresses and " \
      "networks (10.0.0.0/8), and unix for the Unix socket, separated by commas; default: none", "", "") \
    X("server", BOOL, ollama_api, 0, 0, 1, "",                                                \
      "answer Ollama's /api/chat, /api/generate, /api/embed, /api/tags and others, too", "", "", LIVE) \
    X("server", BOOL, web_page, 1, 0, 1, "",                                                  \
      "show a page of the server's memory to browsers, at /, and answer /v1/memory/stream, which it reads", "", "") \
    X("server", STR, docs_dir, "", 0, 255, "",                                                \
      "folder of the rendered documentation, served below /docs/ with web_page; default: the package's, where it is " \
      "installed", "", "")                                                                    \
    X("server", BOOL, log_requests, 1, 0, 1, "",                                              \
      "write one log line per request", "", "", LIVE)                                                 \
    X("memory", STR, memory, "auto", 0, 63, "",                                               \
      "budget for all memory: 6GiB, 75%, or auto (what the plan needs, within the cgroup's "  \
      "limit)", "", "", LIVE)                                                                 \
    X("memory", STR, memory_max, "", 0, 63, "",                                               \
      "how far the budget may grow while it serves: a size as of memory; default: memory, so " \
      "that it can only shrink and grow back", "", "")                                        \
    X("memory", ENUM, memory_pressure, 0, 0, 0, "",                                           \
      "psi: give cached KV blocks back while the kernel reports memory pressure, and take "   \
      "them again slowly; the CPU engine alone", "off|psi", "")                               \
    X("memory", U32, idle_release, 0, 0, 2592000, "s",                                        \
      "give the KV cache back to the system but for one request of the longest length when no " \
      "request has run for this long, until the next one comes; 0: never", \
      "", "")                                                                                 \
    X("memory", STR, host_memory, "auto", 0, 63, "",                                          \
      "budget for the memory of the host with backend = cuda; 'memory' is then that of the " \
      "device", "", "")                                                                     \
    X("memory", BYTES, request_memory, 0, 0, 68719476736, "bytes",                            \
      "memory for request bodies, prompts and queued output; 0: computed from max_body, "      \
      "max_model_len and max_waiting", "", "")                                                                  \
    X("memory", BYTES, grammar_cache_bytes, 16777216, 65536, 68719476736, "bytes",            \
      "memory for the masks of allowed tokens of structured output", "", "")                  \
    X("memory", U64, kv_cache_tokens, 0, 0, 1099511627776, "tokens",                          \
      "size of the KV cache; 0: what the budget holds, or with memory = auto 1024 per "        \
      "sequence", "", "")                                                                     \
    X("memory", ENUM, kv_cache_dtype, 0, 0, 0, "",                                            \
      "type of the KV cache; auto: f16", "auto|f16|bf16|f32|int8|q8_0|fp8|int4", "")          \
    X("memory", ENUM, cache_type_k, 0, 0, 0, "",                                              \
      "type of the cache's keys alone; same: kv_cache_dtype",                                 \
      "same|f16|bf16|f32|int8|q8_0|fp8|int4", "")                                             \
    X("memory", ENUM, cache_type_v, 0, 0, 0, "",                                              \
      "type of the cache's values alone; same: kv_cache_dtype",                               \
      "same|f16|bf16|f32|int8|q8_0|fp8|int4", "")                                             \
    X("memory", POW2, block_size, 16, 8, 256, "tokens",                                       \
      "tokens of a KV block, a power of two", "", "")                                         \
    X("memory", U32, state_checkpoints, 0, 0, 65536, "",                                      \
      "copies of the states of recurrent layers that prefixes are found by, beside the state of each running sequence; " \
      "0: a quarter of max_num_seqs, 4 at least", "", "")                                     \
    X("scheduler", U32, max_num_seqs, 32, 1, 4096, "",                                        \
      "sequences that run at once", "", "parallel np")                                        \
    X("scheduler", U32, max_num_batched_tokens, 0, 0, 65536, "tokens",                        \
      "most tokens computed in one step: one per running sequence, the others of prompts; 0: on the CPU 64 per " \
      "thread, 128 at least and 512 at most, on CUDA 512", "", "batch-size b")                \
    X("scheduler", ENUM, batching, 0, 0, 0, "",                                               \
      "which sequences run together: continuous admits at every step; static runs a batch to its end before the next; " \
      "dynamic, the same, waits for 20 ms to fill it (both for comparison)",                  \
      "continuous|dynamic|static", "")                                                        \
    X("scheduler", ENUM, scheduler_policy, 0, 0, 0, "",                                       \
      "who is admitted next, of equal priority: fair, a request of the key that was served least; fcfs, the oldest; " \
      "priority, the oldest, where each priority counts as 30 s; shortest, the one that is predicted to end first, with aging", \
      "fair|fcfs|priority|shortest", "")    \
    X("scheduler", U32, itl_slo_ms, 0, 0, 60000, "ms",                                        \
      "longest time between two tokens of a stream: a step takes as many prompt tokens as fit in it; 0: no objective", \
      "", "")                                                                                 \
    X("scheduler", U32, ttft_slo_ms, 0, 0, 3600000, "ms",                                     \
      "longest time to the first token: requests that are predicted to wait longer get 429; 0: no objective", \
      "", "")                                                                                 \
    X("scheduler", ENUM, slo_first, 0, 0, 0, "",                                              \
      "which objective yields where both cannot be kept: itl keeps itl_slo_ms; ttft gives up itl_slo_ms while a prompt has " \
      "waited for half of ttft_slo_ms", "itl|ttft", "")                                       \
    X("scheduler", U32, max_waiting, 256, 1, 1000000, "",                                     \
      "most requests in the queue; further ones get 429", "", "")                                          \
    X("scheduler", U64, max_waiting_tokens, 1048576, 1, 1099511627776, "tokens",              \
      "most prompt tokens in the queue; further requests get 429", "", "")                                     \
    X("scheduler", U32, watermark, 50, 0, 500, "permille",                                    \
      "share of the KV cache that is kept free when a request is admitted, in thousandths", "", "")                                             \
    X("scheduler", BOOL, prefix_caching, 1, 0, 1, "",                                         \
      "keep full KV blocks for later prompts with the same beginning", "",                    \
      "enable-prefix-caching")                                                                \
    X("memory", STR, kv_disk, "", 0, 255, "",                                                 \
      "directory for KV blocks of prefixes, which then survive a restart; default: none", "", "") \
    X("memory", BYTES, kv_disk_bytes, 21474836480, 4096, 1125899906842624, "bytes",           \
      "most bytes in kv_disk; the least recently used prefixes go first", "", "")             \
    X("memory", BYTES, kv_host_bytes, 0, 0, 1125899906842624, "bytes",                        \
      "host memory for KV blocks of prefixes and preempted requests, with CUDA; 0: none", "", "") \
    X("memory", STR, expert_memory, "all", 0, 63, "",                                         \
      "experts of a mixture that are in memory, others are read from the model file when rows " \
      "go to them: all, a size (8GiB), a share (25%), or auto: what the budget holds (CPU)", "", "") \
    X("sampling", STR, temperature, "auto", 0, 15, "",                                        \
      "temperature of requests that give none, 0 to 2; auto: what the model file recommends, " \
      "else 1 (vramd generate: 0)", "", "temp")                                               \
    X("sampling", STR, top_p, "auto", 0, 15, "",                                              \
      "top_p of requests that give none, 0 to 1; auto: what the model file recommends, else 1", \
      "", "")                                                                                 \
    X("sampling", STR, top_k, "auto", 0, 15, "",                                              \
      "top_k of requests that give none, 0: off; auto: what the model file recommends, else 0", \
      "", "")                                                                                 \
    X("sampling", STR, min_p, "auto", 0, 15, "",                                              \
      "min_p of requests that give none, 0 to 1; auto: what the model file recommends, else 0", \
      "", "")                                                                                 \
    X("engine", ENUM, backend, 0, 0, 0, "",                                                   \
      "engine", "auto|cpu|cuda", "")                                                          \
    X("engine", U32, cuda_device, 0, 0, 63, "",                                               \
      "number of the CUDA device, of rank 0 where there are several ranks, as the driver counts them", "", "")                                 \
    X("engine", STR, cuda_plugin, "", 0, 255, "",                                             \
      "path of the CUDA engine; default: vramd-cuda.so beside the binary, or where packages " \
      "put it", "", "")                                                                       \
    X("engine", STR, gpu_layers, "auto", 0, 15, "",                                           \
      "CUDA: layers whose weights are in the device's memory; those of the others are in the host's (offload). auto: " \
      "as many as fit; all", "", "n-gpu-layers ngl")                                          \
    X("engine", U32, n_cpu_moe, 0, 0, 65535, "",                                              \
      "CUDA: of so many first layers the experts' weights are in the host's memory", "", "")  \
    X("engine", ENUM, offload, 1, 0, 0, "",                                                   \
      "CUDA: weights in the host's memory are copied to the device for each step, with the same bits, or the CPU " \
      "computes with them there; auto: what decodes faster by the rates of link and memory", \
      "auto|copy|compute", "")                                                                \
    X("engine", BOOL, batch_invariant, 0, 0, 1, "",                                           \
      "CUDA: compute the same bits whatever else is in the batch, which is slower; the CPU always does", \
      "", "")                                                                                 \
    X("engine", U32, threads, 0, 0, 256, "",                                                  \
      "worker threads; 0: one per core", "", "t")                                             \
    X("engine", U32, tensor_parallel_size, 1, 1, 64, "",                                      \
      "processes that divide each matrix among them, with CUDA each on a device of its own; the same bits (docs/parallel.md)", "", "tp") \
    X("engine", U32, pipeline_parallel_size, 1, 1, 64, "",                                    \
      "CPU: stages, processes that have some layers each; the same bits (docs/parallel.md)", "", "pp") \
    X("engine", ENUM, distributed_executor_backend, 0, 0, 0, "",                              \
      "who starts the ranks: mp, vramd itself, on this machine; mpi, a launcher, on several (mpirun, srun); auto: mpi where a " \
      "launcher has started several processes, else mp", "auto|mp|mpi", "")                   \
    X("engine", STR, mpi_plugin, "", 0, 255, "",                                              \
      "path of the MPI plugin; default: vramd-mpi.so beside the binary, or where packages put it", "", "") \
    X("engine", ENUM, attention, 0, 0, 0, "",                                                 \
      "unfused, on the CPU: scores of all rows, heads and tokens are written out; the same bits (for comparison)", \
      "fused|unfused", "")                                                                    \
    X("engine", ENUM, speculative, 0, 0, 0, "",                                            \
      "lookup: guess next tokens from where the text said the same before, and verify several in one step; the same " \
      "answers, sooner where they quote or edit the prompt; the CPU engine alone", "off|lookup", "")                                  \
    X("engine", STR, draft_model, "", 0, 255, "",                                             \
      "file of a small model with the same vocabulary, which guesses next tokens; several are verified in one step; " \
      "the same answers, sooner where it guesses well; the CPU engine alone; default: none", "", \
      "model-draft md speculative-model")                                                     \
    X("engine", U32, speculative_tokens, 15, 1, 15, "tokens",                               \
      "most guesses of a sequence that a step verifies", "",                                  \
      "num-speculative-tokens draft-max")          \
    X("engine", ENUM, cpu_isa, 0, 0, 0, "",                                                   \
      "instruction set; a better one than the CPU has is refused",                            \
      "auto|plain|avx2|avxvnni|avx512|amx", "")                                               \
    X("engine", ENUM, activation_dtype, 0, 0, 0, "",                                          \
      "type of the activations of linear layers; auto: int8 on the CPU (which has neither f16 nor fp8), on CUDA f16, or " \
      "bf16 for a bf16 model; fp8: there, of FP8 weights with a scale for each output, in steps of more than 64 rows", \
      "auto|int8|f32|bf16|f16|fp8", "") \
    X("log", STR, step_log, "", 0, 255, "",                                                   \
      "file for every input of the scheduler, with the prompts, which vramd simulate replays; default: none", "", "") \
    X("log", ENUM, log_level, 2, 0, 0, "",                                                    \
      "what to log", "error|warn|info|debug", "", LIVE)
// clang-format on

/* X(name, help): in the order of the file, the help and the manual. */
#define SECTION_LIST(X)                                                                        \
    X(model, "the model")                                                                      \
    X(server, "sockets and clients")                                                           \
    X(memory, "budget and KV cache")                                                           \
    X(scheduler, "batching and the queue")                                                     \
    X(sampling, "defaults of requests that give no value")                                     \
    X(engine, "where and how the model is computed")                                           \
    X(log, "what is logged")

#endif
