# vramd: `make` builds build/vramd; `make help` lists the rest.

ifeq ($(origin CC),default) # make's own is cc
CC := gcc
endif
BUILD   ?= build
PREFIX  ?= /usr
PYTHON  ?= python3
PROFILE ?=

VERSION := $(file <VERSION)
# MODULES, lowest first, and below_MODULE: those that its objects are linked with, itself first.
$(foreach l,$(shell tools/layers.sh --make),$(eval $(subst +, ,$(l))))
MPI_SRC := engine/mpi/plugin.c # of vramd-mpi.so (engine/mpi/mpi.mk)
SRC     := $(filter-out $(MPI_SRC),$(foreach r,$(MODULES),$(sort $(wildcard $(r)/*.c $(r)/*/*.c))))
WEB     := $(sort $(foreach e,html js css json svg png txt,$(wildcard web/*.$(e)))) # the page, part of the binary
OBJ     := $(SRC:%.c=$(BUILD)/obj/%.o) $(BUILD)/obj/api/web_files.o

PKGS     := libmicrohttpd gnutls libuv jansson libpcre2-8 libutf8proc
LOADED   := libcurl # at run time, when it is wanted (load/curl.c)
CPPFLAGS += -I. -I$(BUILD)/gen -D_GNU_SOURCE -DVRAMD_VERSION='"$(VERSION)"' $(shell pkg-config --cflags $(PKGS) $(LOADED) 2>/dev/null)
CFLAGS   ?= -O2 -g
# No contraction, no reassociation: the same bits on every instruction set (docs/numerics.md).
CFLAGS   += -std=c11 -Wall -Wextra -Werror -ffp-contract=off -fno-omit-frame-pointer $(SAN)
LDLIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -linih -lm -lpthread
LDFLAGS  += $(SAN)

# Instruction sets by file name; everything else runs on any x86-64.
ISA = $(if $(filter %_avx2.o %_avxvnni.o,$@),-O3 -mavx2 -mfma -mf16c)$(if $(filter %_avxvnni.o,$@), -mavxvnni)$(if $(filter %_avx512.o %_amx.o,$@),-O3 -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni)$(if $(filter %_amx.o,$@), -mavx512bf16 -mamx-tile -mamx-bf16)$(if $(filter %_plain.o,$@),-O3 -Wno-psabi)
# TSan would slow the wide kernels twentyfold and learn nothing of them that it does not learn of
# their versions in plain C: those stay watched, and so do the team and the steps that share memory.
ISA += $(if $(findstring thread,$(SAN)),$(if $(filter %_avx2.o %_avxvnni.o %_avx512.o %_amx.o %/row.o,$@),-fno-sanitize=thread))

.PHONY: all help structured quality charts docs screenshots api-page clients test unit unit-bins asan ubsan tsan fuzz fuzz-sched bench soak soak-flat techniques schemathesis layers pure names versions format format-check tidy install deb deb-test deb-boot-test clean
all: $(BUILD)/vramd ## build build/vramd

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' Makefile engine/*/*.mk | sed -E 's/:.*## /\t/' | expand -t 16

VRAMD_OBJ := $(filter-out $(BUILD)/obj/sim/fake.o $(BUILD)/obj/sim/sim.o,$(OBJ)) # those two are for tests
$(BUILD)/vramd: $(VRAMD_OBJ) | layers pure
	$(CC) $(LDFLAGS) -o $@ $(VRAMD_OBJ) $(LDLIBS)

# Objects depend on a file with the flags they were compiled with, which changes when the flags
# do. $(call flags_file,FILE,TEXT). REUSE_OBJECTS=1: flags are not compared (tools/deb.sh --reuse).
.PHONY: FORCE
define flags_file
$(1): export FLAGS_TEXT := $(2)
$(1): $(if $(REUSE_OBJECTS),,FORCE)
	@mkdir -p $$(@D)
	@printf '%s\n' "$$$$FLAGS_TEXT" | cmp -s - $$@ || printf '%s\n' "$$$$FLAGS_TEXT" > $$@
endef
$(eval $(call flags_file,$(BUILD)/flags,$$(filter-out ccache,$$(CC)) $$(CPPFLAGS) $$(CFLAGS) $$(LDFLAGS) $$(value ISA)))

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(ISA) -MMD -MP -c -o $@ $<

$(eval $(call flags_file,$(BUILD)/web_files,$$(WEB)))
$(BUILD)/gen/web_files.c: $(WEB) tools/embed.sh $(BUILD)/web_files
	@mkdir -p $(@D)
	tools/embed.sh $(WEB) > $@.new && mv $@.new $@
$(BUILD)/obj/api/web_files.o: $(BUILD)/gen/web_files.c api/web_files.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

# Unit tests: tests/MODULE/test_X.c is linked with the objects of MODULE and of those below it. Not with the
# commands, which end the process.
UNIT_SRC := $(foreach r,$(MODULES),$(sort $(wildcard tests/$(r)/test_*.c)))
UNIT_BIN := $(UNIT_SRC:%.c=$(BUILD)/%)
PROBE    := $(BUILD)/tests/text/schema_probe
OPS_BIN  := $(BUILD)/tests/sim/stream_ops
objs_of   = $(filter-out $(BUILD)/obj/daemon/main.o $(BUILD)/obj/daemon/cmd_%.o,$(foreach r,$(below_$(1)),$(filter $(BUILD)/obj/$(r)/%,$(OBJ))))

.SECONDEXPANSION:
$(UNIT_BIN) $(PROBE) $(OPS_BIN): $(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $$(call objs_of,$$(firstword $$(subst /, ,$$*)))
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(shell pkg-config --libs check) $(LDLIBS)

# LD_PRELOAD for tests/e2e/test_oom.py: not with a sanitizer, which has an allocator of its own.
$(BUILD)/oom.so: tests/e2e/oom.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -std=c11 -O2 -g -Wall -Wextra -Werror -fPIC -shared -o $@ $< -ldl

# The loads of soak_flat.py and of the benchmarks: not parts of the daemon, and never with a sanitizer.
$(BUILD)/soak_load: tests/e2e/soak_load.c
$(BUILD)/load: bench/load.c
$(BUILD)/soak_load $(BUILD)/load: bench/http_client.c bench/http_client.h
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -std=c11 -O2 -g -Wall -Wextra -Werror -o $@ $(filter %.c,$^)

test: ## all tests; T=name for one
	BUILD=$(BUILD) tools/run-tests.sh $(T)
unit-bins: $(UNIT_BIN)
schema-suite: $(PROBE) ## schemas against the official JSON Schema test suite
	$$(tools/venv.sh) tests/text/schema_suite.py $<
unit: ## unit tests only; T=name for one
	BUILD=$(BUILD) tools/run-tests.sh --unit $(T)

SAN_asan  := -fsanitize=address -fno-sanitize-recover=all
SAN_ubsan := -fsanitize=undefined -fno-sanitize-recover=all
SAN_tsan  := -fsanitize=thread
asan: ## all tests under AddressSanitizer and LeakSanitizer (also ubsan, tsan)
ubsan tsan asan:
	$(MAKE) test BUILD=build/$@ SAN="$(SAN_$@)" T=$(T)
%-unit: ## asan-unit, ubsan-unit, tsan-unit: the unit tests alone
	$(MAKE) unit BUILD=build/$* SAN="$(SAN_$*)" T=$(T)

# Fuzzers: tests/fuzz/fuzz_X.c; its first line names its module: /* module: model */
F       ?= gguf
SECONDS ?= 60
fuzz: ## libFuzzer; F=gguf SECONDS=60
	$(MAKE) fuzz-build BUILD=build/fuzz CC=clang SAN="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all" F=$(F)
	mkdir -p build/fuzz/corpus/$(F)
	build/fuzz/fuzz_$(F) -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 build/fuzz/corpus/$(F) $(wildcard tests/fuzz/corpus/$(F))
OPS ?= 10000000
fuzz-sched: $(OPS_BIN) ## random operations on the scheduler against a naive reference; OPS=100000000 JOBS= SEED= (the first)
	$(OPS_BIN) $(OPS) "$(JOBS)" $(SEED)
FUZZ_MODULE = $(shell sed -n '1s|^/\* module: \([a-z]*\).*|\1|p' tests/fuzz/fuzz_$(F).c 2>/dev/null)
fuzz-build: $(BUILD)/obj/tests/fuzz/fuzz_$(F).o $$(call objs_of,$$(FUZZ_MODULE))
	$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $(BUILD)/fuzz_$(F) $^ $(LDLIBS)

include engine/cuda/cuda.mk
include engine/mpi/mpi.mk

B ?= engine
bench: $(BUILD)/vramd ## benchmarks into bench/results/; B=engine, http, scheduler, ...
	BUILD=$(BUILD) bench/run.sh $(B)
# Benchmark programs in C: bench/bench_X.c; first line as for fuzzers.
$(BUILD)/bench_%: bench/bench_%.c $(OBJ)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(filter-out $(BUILD)/obj/daemon/%,$(OBJ)) $(LDLIBS)

techniques: $(BUILD)/vramd ## what techniques give: bench/results/techniques-CPU.json and docs/techniques.md; T=batching,weights TOKENS=2048 ONLY=quality CONTINUE=1
	BUILD=$(BUILD) $(PYTHON) bench/bench_techniques.py $(T) $(if $(TOKENS),--tokens $(TOKENS)) $(if $(ONLY),--only $(ONLY)) $(if $(CONTINUE),--continue)

charts: ## docs/chart-*.svg from bench/results, and the README's table of GPU figures
	$(PYTHON) bench/chart.py

screenshots: $(BUILD)/vramd ## docs/web/*.png: the page under load, in Chromium; MINUTES=10 for the whole history
	BUILD=$(BUILD) VRAMD_TEST_MODEL=$${VRAMD_TEST_MODEL:-$$(tools/get-model.sh)} $$(tools/venv.sh) tools/screenshots.py $(MINUTES)

quality: $(BUILD)/vramd ## KL, top-1 and perplexity of every type of KV cache and weights, on the real models: bench/results/quality-*.json; TOKENS=20000 MODELS= KV= ACTIVATIONS= WEIGHTS=
	BUILD=$(BUILD) TOKENS="$(TOKENS)" MODELS="$(MODELS)" KV="$(KV)" ACTIVATIONS="$(ACTIVATIONS)" WEIGHTS="$(WEIGHTS)" AGAIN=$(AGAIN) $(PYTHON) bench/quality.py

clients: $(BUILD)/vramd ## scripts of real clients (tests/clients), each in a venv of its own; T=name for one
	BUILD=$(BUILD) $$(tools/venv.sh) tools/clients.py $(T)

schemathesis: $(BUILD)/vramd ## 2,000 and more requests made of /openapi.json; N=20 of each operation for fewer
	BUILD=$(BUILD) tools/schemathesis.sh $(N)

soak: $(BUILD)/vramd ## 10,000 mixed requests, 5,000 idle streams, under the plan and 2%; N=1000 for fewer
	BUILD=$(BUILD) tools/soak.sh $(or $(N),10000)

soak-flat: $(BUILD)/vramd $(BUILD)/soak_load ## memory stays flat: 1,000,000 mixed requests on a tiny model, every type of KV cache; N=100000 for fewer, SAVE=1: figures to bench/results
	BUILD=$(BUILD) $$(tools/venv.sh) tests/e2e/soak_flat.py $(or $(N),1000000) --peer $(if $(SAVE),--save)

docs: ## docs/*.md as static pages with pandoc, for /docs/ of the daemon: build/vramd-docs
	tools/docs.sh $(BUILD)/vramd-docs

api-page: $(BUILD)/tests/api/test_api_page ## write the parameters into docs/api.md
	VRAMD_WRITE=1 $<

structured: $(BUILD)/vramd ## 1,000 answers of the test model to each of 20 schemas, validated by jsonschema; N=100 for fewer
	BUILD=$(BUILD) STRUCTURED_N=$(or $(N),1000) tools/run-tests.sh structured

layers: $(OBJ) ## check that modules include only downwards, and that the files of one form no cycle
	@tools/layers.sh
	@tools/imports.sh --cycles $(BUILD)
names: ## check that what comments name exists
	@$(PYTHON) tools/names.py
versions: ## check that packages and image name the version of VERSION
	@tools/versions.sh
pure: $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard scheduler/*.c)) ## check that the scheduler calls nothing but memcpy and kin
	@tools/pure.sh $^
C_FILES = $(shell git ls-files -co --exclude-standard '*.c' '*.h' '*.cu' '*.cuh' '*.cpp')
format: ## clang-format in place
	@$$(tools/clang-format.sh) -i $(C_FILES)
format-check: ## fail where clang-format would change something
	@$$(tools/clang-format.sh) --dry-run --Werror $(C_FILES)
tidy: ## clang-tidy with the checks of .clang-tidy
	@tools/tidy.sh $(SRC) -- -std=c11 $(CPPFLAGS)

# The unit starts what this prefix holds. The CUDA engine and the MPI plugin go along where they are built.
SHARE = $(DESTDIR)$(PREFIX)/share
UNITDIR ?= $(PREFIX)/lib/systemd/system
install: $(BUILD)/vramd ## DESTDIR=, PREFIX=/usr
	install -D -m 755 $(BUILD)/vramd $(DESTDIR)$(PREFIX)/bin/vramd
	install -d $(SHARE)/doc/vramd/examples $(DESTDIR)$(UNITDIR)
	tools/man.sh $(BUILD)/vramd $(SHARE)/man
	$(BUILD)/vramd serve --print-sample > $(SHARE)/doc/vramd/examples/vramd.conf
	install -D -m 644 tools/completion.bash $(SHARE)/bash-completion/completions/vramd
	install -m 644 docs/configuration.md docs/web.md docs/several-models.md docs/parallel.md docs/security.md docs/operations.md docs/planning.md docs/scheduler.md docs/simulate.md docs/bench.md docs/eval.md docs/quantize.md docs/dashboard.json docs/alerts.yml docs/chart-*.svg $(SHARE)/doc/vramd
	sed 's|/usr/bin/vramd|$(PREFIX)/bin/vramd|' systemd/vramd.service > $(DESTDIR)$(UNITDIR)/vramd.service
	install -m 644 systemd/vramd.socket $(DESTDIR)$(UNITDIR)
ifneq ($(wildcard $(BUILD)/vramd-docs/index.html),) # make docs
	install -d $(SHARE)/vramd/docs
	install -m 644 $(BUILD)/vramd-docs/* $(SHARE)/vramd/docs
	ln -sfn ../../vramd/docs $(SHARE)/doc/vramd/html
endif
ifneq ($(wildcard $(BUILD)/vramd-mpi.so),)
	install -D -m 644 $(BUILD)/vramd-mpi.so $(DESTDIR)$(PREFIX)/lib/vramd/vramd-mpi.so
endif
ifneq ($(wildcard $(BUILD)/vramd-cuda.so),)
	install -D -m 644 $(BUILD)/vramd-cuda.so $(DESTDIR)$(PREFIX)/lib/vramd/vramd-cuda.so
	install -D -m 644 systemd/vramd-cuda.conf $(DESTDIR)$(UNITDIR)/vramd.service.d/vramd-cuda.conf
endif

deb: ## the Debian packages, into build/ (tools/deb.sh; as any user)
	tools/deb.sh
deb-test: deb ## lintian, and install, serve, purge in a chroot, as root: CHROOT=DIR (made if absent)
	lintian --allow-root --info --pedantic --suppress-tags alien-tag --fail-on error,warning,info,pedantic build/vramd_$(VERSION)_*.changes
	tools/chroot-test.sh $(or $(CHROOT),build/chroot) build/vramd_$(VERSION)_*.deb
deb-boot-test: deb ## systemd booted in the chroot: the unit, its limits, sockets, Prometheus, as root: CHROOT=DIR
	tools/systemd-test.sh $(or $(CHROOT),build/chroot) build/vramd_$(VERSION)_*.deb

clean: ## remove build/
	rm -rf build

-include $(OBJ:.o=.d) $(UNIT_BIN:$(BUILD)/%=$(BUILD)/obj/%.d) $(PROBE:$(BUILD)/%=$(BUILD)/obj/%.d) $(OPS_BIN:$(BUILD)/%=$(BUILD)/obj/%.d)
