# CUDA, included by the Makefile.
#   engine/cuda/*.cu, *.cpp   the plugin, build/vramd-cuda.so: by nvcc, C++17
#   engine/cuda/*.c           part of the base binary, which knows nothing of CUDA: not in here
#   engine/tables.c           part of both
#   tests/cushim/             the same sources on the CPU (-DCUSHIM), for tests alone
#   tests/cuda/test_*.c|cpp|cu    tests of the plugin's parts on the shim
#   build/device/             the same tests and the benchmarks for a machine with a GPU (DEVICE)

CUDA ?= /usr/local/cuda
NVCC ?= $(CUDA)/bin/nvcc
CXX  ?= g++
HAVE_NVCC := $(wildcard $(NVCC))
HAVE_CUDA := $(wildcard $(CUDA)/include/cuda_runtime_api.h)
NO_CUDA   := CUDA toolkit not found (no $(CUDA)/include/cuda_runtime_api.h; set CUDA=): skipped

CUDA_SRC := $(sort $(wildcard engine/cuda/*.cu engine/cuda/*.cpp))
CUDA_C   := engine/tables.c # of the base, and in the plugin too

.PHONY: cuda cuda-shim cuda-test-bins test-cuda cuda-model-check engine-tools

# ---- The plugin. Files named *_sm90a.* use hopper.cuh: for that architecture alone.
CUDA_ARCH  ?= -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 -gencode arch=compute_90,code=compute_90
CUDA_SM90A := -gencode arch=compute_90a,code=sm_90a
arch_of     = $(if $(findstring _sm90a.,$(1)),$(CUDA_SM90A),$(CUDA_ARCH))
NVFLAGS    := -std=c++17 -O3 -lineinfo --compress-mode=size -I. -D_GNU_SOURCE -DVRAMD_VERSION='"$(VERSION)"' --Werror all-warnings -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-D_FORTIFY_SOURCE=2
CUDA_OBJ   := $(patsubst %,$(BUILD)/cuda/%.o,$(CUDA_SRC))
CUDA_C_OBJ := $(CUDA_C:%=$(BUILD)/cuda/%.o)
CUDA_LINK   = $(NVCC) -cudart static -Xcompiler -fPIC

ifneq ($(HAVE_NVCC),)
cuda: $(if $(CUDA_SRC),$(BUILD)/vramd-cuda.so) ## build/vramd-cuda.so, the CUDA engine
else
cuda:
	@echo "$(NO_CUDA)"
endif

$(eval $(call flags_file,$(BUILD)/cuda/flags,$$(filter-out ccache,$$(NVCC)) $$(NVFLAGS) $$(CUDA_ARCH) $$(CUDA_SM90A)))
$(BUILD)/cuda/%.cu.o: %.cu $(BUILD)/cuda/flags
	@mkdir -p $(@D)
	$(NVCC) $(NVFLAGS) $(call arch_of,$<) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
$(BUILD)/cuda/%.cpp.o: %.cpp $(BUILD)/cuda/flags
	@mkdir -p $(@D)
	$(NVCC) $(NVFLAGS) $(call arch_of,$<) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
$(BUILD)/cuda/%.c.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -fvisibility=hidden -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
$(BUILD)/vramd-cuda.so: $(CUDA_OBJ) $(CUDA_C_OBJ)
	$(CUDA_LINK) -shared -Xcompiler -static-libgcc,-static-libstdc++ -Xlinker -z,defs,-z,relro,-z,now -Xlinker --exclude-libs,ALL -o $@ $^ -ldl -lpthread

# ---- The same sources on the CPU.
SHIM_SRC   := $(sort $(filter-out tests/cushim/test_%,$(wildcard tests/cushim/*.cpp)))
SHIM_FLAGS := -std=c++17 -O2 -g -Wall -Wextra -Werror -Wno-unknown-pragmas -ffp-contract=off -fno-strict-aliasing -fno-omit-frame-pointer \
              -fPIC -DCUSHIM -D_GNU_SOURCE -DVRAMD_VERSION='"$(VERSION)"' -I. -Itests/cushim -isystem $(CUDA)/include $(SAN)
SHIM_OBJ   := $(patsubst %,$(BUILD)/shim/%.o,$(SHIM_SRC))
SHIM_CUDA  := $(patsubst %,$(BUILD)/shim/%.o,$(CUDA_SRC))
shim_compile = $(CXX) $(SHIM_FLAGS) $(if $(filter $<,$(SHIM_SRC)),-O3) $(if $(filter engine/%,$<),-fvisibility=hidden) -x c++ -MMD -MP -c -o $@ $<

ifneq ($(HAVE_CUDA),)
cuda-shim: $(BUILD)/vramd-cuda-shim.so ## the CUDA engine on the CPU, for tests
else
cuda-shim:
	@echo "$(NO_CUDA)"
endif

$(eval $(call flags_file,$(BUILD)/shim/flags,$$(filter-out ccache,$$(CXX) $$(CC)) $$(SHIM_FLAGS) $$(CPPFLAGS) $$(CFLAGS)))
$(BUILD)/shim/%.cu.o: %.cu $(BUILD)/shim/flags
	@mkdir -p $(@D)
	$(shim_compile)
$(BUILD)/shim/%.cpp.o: %.cpp $(BUILD)/shim/flags
	@mkdir -p $(@D)
	$(shim_compile)
$(BUILD)/shim/%.c.o: %.c $(BUILD)/shim/flags
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests/cushim -isystem $(CUDA)/include -DCUSHIM $(CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/vramd-cuda-shim.so: $(SHIM_CUDA) $(SHIM_OBJ) $(CUDA_C_OBJ)
	$(CXX) $(SAN) -shared -Wl,-Bsymbolic -Wl,-z,defs -o $@ $^ -lm -lpthread

# ---- Tests: each is linked with the shim, and those of tests/cuda with the plugin's objects and the
# modules up to engine, too (from MODULES_IN: sanitized tests take those as they are).
MODULES_IN      ?= $(BUILD)
CUDA_TEST_LINK = $(SHIM_OBJ) $(if $(filter tests/cuda/%,$(1)),$(SHIM_CUDA) $(patsubst $(BUILD)/%,$(MODULES_IN)/%,$(call objs_of,engine)))
CUDA_TEST_SRC := $(sort $(wildcard $(foreach e,c cpp cu,tests/cuda/test_*.$(e) tests/cushim/test_*.$(e))))
CUDA_TEST_BIN := $(foreach t,$(CUDA_TEST_SRC),$(BUILD)/shim/$(basename $(t)))
cuda-test-bins: $(CUDA_TEST_BIN)
$(CUDA_TEST_BIN): $(BUILD)/shim/%: $$(addprefix $(BUILD)/shim/,$$(addsuffix .o,$$(filter $$*.c $$*.cpp $$*.cu,$(CUDA_TEST_SRC)))) $$(call CUDA_TEST_LINK,$$*)
	$(CXX) $(LDFLAGS) -o $@ $^ $(shell pkg-config --libs check) $(LDLIBS)

test-cuda: ## all CUDA tests on the CPU, in four orders and under ASan; T=name for one
ifneq ($(HAVE_CUDA),)
	BUILD=$(BUILD) tools/run-cuda-tests.sh $(T)
else
	@echo "$(NO_CUDA)"
	@echo "0 passed, 0 failed"
endif

cuda-model-check: ## fails where a CUDA kernel spills or its hot loop grew (tools/cuda_kernels.json); without nvcc it says so
	NVCC=$(lastword $(NVCC)) tools/cuda_model.py check

# ---- Programs for a machine with a GPU: the tests of tests/cuda and the benchmarks. They want a driver and
# libc; everything else (cudart, Check, libstdc++) is linked in. tools/device.sh packs and runs them;
# it builds objects of one architecture in a folder of its own, and sets DEVICE.
DEVICE      ?= $(BUILD)/device
DEVICE_TEST := $(patsubst tests/cuda/%.cpp,$(DEVICE)/%,$(sort $(wildcard tests/cuda/test_*.cpp)))
DEVICE_BIN  := $(DEVICE_TEST) $(DEVICE)/test_engine $(patsubst bench/%.cu,$(DEVICE)/%,$(wildcard bench/*.cu)) \
               $(DEVICE)/bench_cuda_engine $(DEVICE)/load
DEVICE_LIBS := $(BUILD)/cuda/libkernels.a $(BUILD)/cuda/libbase.a
DEVICE_CHECK = $(foreach l,check_pic subunit,$(shell $(CC) -print-file-name=lib$(l).a))
DEVICE_LINK := $(CUDA_LINK) -Xcompiler -static-libgcc,-static-libstdc++ -Xlinker -s
ifneq ($(HAVE_NVCC),)
engine-tools: $(DEVICE_BIN) ## tests and benchmarks for a GPU, by nvcc
else
engine-tools:
	@echo "$(NO_CUDA)"
endif
$(BUILD)/cuda/libkernels.a: $(CUDA_OBJ)
$(BUILD)/cuda/libbase.a: $(call objs_of,engine)
$(DEVICE_LIBS):
	@mkdir -p $(@D); rm -f $@
	ar rcs $@ $^
$(BUILD)/cuda/tests/cuda/%.o $(BUILD)/cuda/bench/%.o: NVFLAGS += -x cu -Itests/cuda
$(DEVICE_TEST): $(DEVICE)/%: $(BUILD)/cuda/tests/cuda/%.cpp.o $(DEVICE_LIBS)
	@mkdir -p $(@D)
	$(DEVICE_LINK) -o $@ $^ $(DEVICE_CHECK) -ldl -lpthread
$(DEVICE)/test_engine: $(BUILD)/obj/tests/cuda/test_engine.o $(BUILD)/obj/tests/cuda/no_shim.o $(DEVICE_LIBS)
	@mkdir -p $(@D)
	$(DEVICE_LINK) -o $@ $^ $(DEVICE_CHECK) -ldl -lpthread
$(DEVICE)/%: $(BUILD)/cuda/bench/%.cu.o $(DEVICE_LIBS)
	@mkdir -p $(@D)
	$(DEVICE_LINK) -o $@ $^ -ldl -lpthread
# The daemon, which looks for its libraries beside itself, and they for theirs.
$(DEVICE)/vramd: $(OBJ)
	@mkdir -p $(@D)
	$(CC) -s -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/lib' -o $@ $^ $(LDLIBS)
# The benchmark on the CPU, to see that it runs: build/shim/bench_cuda --small 1
$(BUILD)/shim/bench_cuda: $(BUILD)/shim/bench/bench_cuda.cu.o $(SHIM_CUDA) $(SHIM_OBJ) $(BUILD)/cuda/libbase.a
	$(CXX) $(LDFLAGS) -o $@ $^ -lm -lpthread
$(DEVICE)/bench_cuda_engine: bench/bench_cuda_engine.c $(BUILD)/cuda/libbase.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -o $@ $^ -s -ldl -lm
$(DEVICE)/load: bench/load.c bench/http_client.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -o $@ $^ -s

-include $(CUDA_OBJ:.o=.d) $(CUDA_C_OBJ:.o=.d) $(wildcard $(BUILD)/cuda/tests/cuda/*.d $(BUILD)/cuda/bench/*.d $(BUILD)/shim/bench/*.d) $(SHIM_OBJ:.o=.d) $(SHIM_CUDA:.o=.d) $(foreach t,$(CUDA_TEST_SRC),$(BUILD)/shim/$(t).d)
