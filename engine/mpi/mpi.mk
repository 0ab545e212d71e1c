# MPI, included by the Makefile: the plugin build/vramd-mpi.so, for Open MPI (Debian: libopenmpi-dev). The base
# binary has the loader alone. Never with a sanitizer.
MPICC    ?= mpicc
HAVE_MPI := $(shell command -v $(MPICC))
MPI_FLAGS = $(shell $(MPICC) --showme:compile)

.PHONY: mpi
ifneq ($(HAVE_MPI),)
mpi: $(BUILD)/vramd-mpi.so ## build/vramd-mpi.so, ranks on several machines
else
mpi:
	@echo "no $(MPICC) (Debian: libopenmpi-dev; set MPICC=): skipped"
endif
$(BUILD)/vramd-mpi.so: $(MPI_SRC) $(BUILD)/flags
	@mkdir -p $(@D)/mpi
	$(CC) $(CPPFLAGS) $(MPI_FLAGS) $(filter-out $(SAN),$(CFLAGS)) -fPIC -fvisibility=hidden -MMD -MP -MF $(BUILD)/mpi/plugin.d -shared -Wl,-z,defs -o $@ $< $(filter-out $(SAN),$(LDFLAGS)) $(shell $(MPICC) --showme:link)
-include $(BUILD)/mpi/plugin.d
