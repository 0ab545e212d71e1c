/* The driver and its devices: which there are, whether they will do, what of their memory is in
 * use. NVML is loaded for the moment of a question; without it some answers are missing. */
#include "engine/cuda/cuda.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LEAST_MAJOR = 8 };

status cuda_fail_hint(const cuda_host *h, err *er, status code, const char *field,
                      const char *hint, const char *fmt, ...) {
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return h->fail(er, code, field, text, hint);
}

status cuda_fail(const cuda_host *h, err *er, status code, const char *fmt, ...) {
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return h->fail(er, code, "", text, "");
}

status cuda_check(const cuda_host *h, cudaError_t ce, const char *what, err *er) {
    if (ce == cudaSuccess) return OK;
    (void)cudaGetLastError(); /* ours now */
    return cuda_fail(h, er, ce == cudaErrorMemoryAllocation ? ERR_NO_MEMORY : ERR_DEVICE,
                     "CUDA, %s: %s", what, cudaGetErrorString(ce));
}

#ifdef CUSHIM /* no driver below it whose memory could be asked for */
bool cuda_used_bytes(uint32_t device, uint64_t *total, uint64_t *used) {
    (void)device, (void)total, (void)used;
    return false;
}
#else
/* Of nvml.h: nvmlMemory_t, and functions that return 0 on success. */
typedef struct nvml_memory {
    unsigned long long total, free_, used;
} nvml_memory;

bool cuda_used_bytes(uint32_t device, uint64_t *total, uint64_t *used) {
    char bus[32];
    void *handle, *lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    nvml_memory m;
    bool ok = false;
    if (!lib) return false;
    int (*init)(void) = (int (*)(void))dlsym(lib, "nvmlInit_v2");
    int (*shutdown)(void) = (int (*)(void))dlsym(lib, "nvmlShutdown");
    int (*find)(const char *, void **) =
        (int (*)(const char *, void **))dlsym(lib, "nvmlDeviceGetHandleByPciBusId_v2");
    int (*memory)(void *, nvml_memory *) =
        (int (*)(void *, nvml_memory *))dlsym(lib, "nvmlDeviceGetMemoryInfo");
    if (init && shutdown && find && memory &&
        cudaDeviceGetPCIBusId(bus, sizeof bus, (int)device) == cudaSuccess && init() == 0) {
        ok = find(bus, &handle) == 0 && memory(handle, &m) == 0;
        if (ok) *total = m.total, *used = m.used;
        shutdown();
    }
    dlclose(lib);
    return ok;
}
#endif

static status no_device(const cuda_host *h, err *er, const char *text, const char *hint) {
    return cuda_fail_hint(h, er, ERR_DEVICE, "backend", hint, "%s", text);
}

static status count_devices(const cuda_host *h, int *n, err *er) {
    int driver = 0, runtime = 0;
    char text[160];
    cudaError_t ce = cudaDriverGetVersion(&driver);
    if (ce == cudaSuccess) ce = cudaRuntimeGetVersion(&runtime);
    if (ce == cudaSuccess && driver == 0)
        return no_device(h, er, "there is no NVIDIA driver",
                         "install the driver, or use backend = cpu");
    if (ce == cudaSuccess) ce = cudaGetDeviceCount(n);
    (void)cudaGetLastError();
    if (ce == cudaErrorInsufficientDriver) {
        snprintf(text, sizeof text,
                 "the NVIDIA driver is of CUDA %d.%d, too old for this build's %d.%d",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
        return no_device(h, er, text, "update the driver, or use backend = cpu");
    }
    if (ce == cudaErrorNoDevice || (ce == cudaSuccess && *n == 0))
        return no_device(h, er, "the NVIDIA driver finds no device",
                         "see nvidia-smi and CUDA_VISIBLE_DEVICES, or use backend = cpu");
    return cuda_check(h, ce, "counting the devices", er);
}

status cuda_probe(uint32_t device, cuda_device *out, const cuda_host *h, err *er) {
    int n = 0;
    cudaDeviceProp p;
    char hint[80];
    status s = count_devices(h, &n, er);
    if (s != OK) return s;
    if (device >= (uint32_t)n) {
        snprintf(hint, sizeof hint, "give at most %d", n - 1);
        return cuda_fail_hint(h, er, ERR_DEVICE, "cuda_device", hint,
                              "cuda_device = %u, but there are %d", device, n);
    }
    s = cuda_check(h, cudaGetDeviceProperties(&p, (int)device), "asking for the device", er);
    if (s != OK) return s;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%.127s", p.name);
    out->major = (uint32_t)p.major, out->minor = (uint32_t)p.minor;
    out->n_sms = (uint32_t)p.multiProcessorCount;
    out->n_devices = (uint32_t)n;
    cudaDriverGetVersion((int *)&out->driver);
    cudaRuntimeGetVersion((int *)&out->runtime);
    uint64_t used = 0;
    if (!cuda_used_bytes(device, &out->total_bytes, &used)) out->total_bytes = p.totalGlobalMem;
    out->free_bytes = out->total_bytes - used;
    if (p.major >= LEAST_MAJOR) return OK;
    return cuda_fail_hint(h, er, ERR_UNSUPPORTED, "cuda_device",
                          "use another device, or backend = cpu",
                          "%s has compute capability %d.%d; %d.0 is the least", p.name, p.major,
                          p.minor, LEAST_MAJOR);
}
