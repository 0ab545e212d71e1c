/* The device's description, the settings, errors, attributes of kernels. The pretended device
 * has an H200's numbers where a kernel could depend on them, and little memory. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <map>
#include <string>

namespace cushim {

std::recursive_mutex mutex;
cushim_counts counts;
long n_written;

static long env(const char *name, long otherwise) {
    const char *v = getenv(name);
    return v && *v ? strtol(v, nullptr, 0) : otherwise;
}

settings config = {
    (int)env("CUSHIM_ORDER", 0),      (int)env("CUSHIM_DEVICES", 1),
    (int)env("CUSHIM_DRIVER", 13000), (int)env("CUSHIM_CAPABILITY", 90),
    env("CUSHIM_GUARD", 1) != 0,      (size_t)env("CUSHIM_MEMORY", 4l << 30),
    env("CUSHIM_FAIL_ALLOC", 0),      env("CUSHIM_LIBRARY", 1) != 0,
    env("CUSHIM_VMM", 1) != 0,
};

static std::string fault;
static thread_local cudaError_t last_error;
static std::map<const void *, size_t> smem_limits; /* of kernels that asked for more */

cudaError_t result(cudaError_t e) {
    if (!fault.empty()) e = cudaErrorLaunchFailure;
    if (e != cudaSuccess && e != cudaErrorNotReady) last_error = e;
    return e;
}

bool faulted() {
    return !fault.empty();
}

void set_fault(const char *text) {
    if (!fault.empty()) return;
    fault = text;
    fprintf(stderr, "cushim: %s\n", text);
}

bool allocation_fails() {
    return config.fail_alloc > 0 && --config.fail_alloc == 0;
}

size_t allowed_smem(const void *kernel) {
    auto i = smem_limits.find(kernel);
    return i == smem_limits.end() ? 48 << 10 : i->second;
}

static cudaError_t no_device() {
    /* what the runtime reports without a driver */
    if (config.driver == 0) return cudaErrorInsufficientDriver;
    if (config.driver < CUDART_VERSION / 1000 * 1000) return cudaErrorInsufficientDriver;
    return config.devices ? cudaSuccess : cudaErrorNoDevice;
}

/* A process has one device's memory and work, whichever that is. */
static thread_local int current_device;

static bool is_device(int n) {
    return n >= 0 && n < config.devices;
}

static const size_t SMEM = 48 << 10, SMEM_OPTIN = 227 << 10;

static int attribute(cudaDeviceAttr a, bool *known) {
    *known = true;
    switch (a) {
    case cudaDevAttrMaxThreadsPerBlock: return 1024;
    case cudaDevAttrMaxBlockDimX: return 1024;
    case cudaDevAttrMaxBlockDimY: return 1024;
    case cudaDevAttrMaxBlockDimZ: return 64;
    case cudaDevAttrMaxGridDimX: return 2147483647;
    case cudaDevAttrMaxGridDimY: return 65535;
    case cudaDevAttrMaxGridDimZ: return 65535;
    case cudaDevAttrMaxSharedMemoryPerBlock: return (int)SMEM;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return (int)SMEM_OPTIN;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return 228 << 10;
    case cudaDevAttrReservedSharedMemoryPerBlock: return 1024;
    case cudaDevAttrMaxRegistersPerBlock: return 65536;
    case cudaDevAttrMaxRegistersPerMultiprocessor: return 65536;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
    case cudaDevAttrMaxBlocksPerMultiprocessor: return 32;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMultiProcessorCount: return 132;
    case cudaDevAttrL2CacheSize: return 50 << 20;
    case cudaDevAttrClockRate: return 1980000;
    case cudaDevAttrMemoryClockRate: return 3201000;
    case cudaDevAttrGlobalMemoryBusWidth: return 6144;
    case cudaDevAttrComputeCapabilityMajor: return config.capability / 10;
    case cudaDevAttrComputeCapabilityMinor: return config.capability % 10;
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrCanMapHostMemory: return 1;
    case cudaDevAttrAsyncEngineCount: return 3;
    case cudaDevAttrIntegrated:
    case cudaDevAttrPageableMemoryAccess:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrPciBusId:
    case cudaDevAttrPciDeviceId:
    case cudaDevAttrPciDomainId: return 0;
    default: *known = false; return 0;
    }
}

} // namespace cushim

using namespace cushim;

extern "C" {

void cushim_set_order(int order) {
    CUSHIM_API;
    config.order = order;
}
int cushim_get_order(void) {
    CUSHIM_API;
    return config.order;
}
void cushim_set_memory(size_t bytes) {
    CUSHIM_API;
    config.memory = bytes;
}
void cushim_set_devices(int n) {
    CUSHIM_API;
    config.devices = n;
}
void cushim_set_driver(int version) {
    CUSHIM_API;
    config.driver = version;
}
void cushim_set_capability(int capability) {
    CUSHIM_API;
    config.capability = capability;
}
void cushim_set_library(bool there) {
    CUSHIM_API;
    config.library = there;
}
bool cushim_has_library(void) {
    CUSHIM_API;
    return config.library;
}
void cushim_fail_alloc(long n) {
    CUSHIM_API;
    config.fail_alloc = n;
}
cushim_counts cushim_count(void) {
    CUSHIM_API;
    return counts;
}
void cushim_break(const char *text) {
    CUSHIM_API;
    set_fault(text);
}
const char *cushim_error(void) {
    CUSHIM_API;
    return fault.empty() ? nullptr : fault.c_str();
}

void cushim_reset(void) {
    CUSHIM_API;
    finish_all();
    fault.clear();
    last_error = cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n) {
    CUSHIM_API;
    *n = 0;
    if (cudaError_t e = no_device()) return result(e);
    *n = config.devices;
    return result(cudaSuccess);
}
cudaError_t cudaSetDevice(int device) {
    CUSHIM_API;
    if (cudaError_t e = no_device()) return result(e);
    if (!is_device(device)) return result(cudaErrorInvalidDevice);
    current_device = device;
    return result(cudaSuccess);
}
cudaError_t cudaGetDevice(int *device) {
    CUSHIM_API;
    *device = current_device;
    return result(no_device());
}
cudaError_t cudaSetDeviceFlags(unsigned) {
    CUSHIM_API;
    return result(no_device());
}
cudaError_t cudaInitDevice(int, unsigned, unsigned) {
    CUSHIM_API;
    return result(no_device());
}
cudaError_t cudaDriverGetVersion(int *v) {
    CUSHIM_API;
    *v = config.driver;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *v) {
    CUSHIM_API;
    *v = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr a, int device) {
    CUSHIM_API;
    if (cudaError_t e = no_device()) return result(e);
    if (!is_device(device)) return result(cudaErrorInvalidDevice);
    bool known;
    *value = attribute(a, &known);
    if (!known) fprintf(stderr, "cushim: device attribute %d is not in device.cpp\n", (int)a);
    return result(known ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
    CUSHIM_API;
    if (cudaError_t e = no_device()) return result(e);
    if (!is_device(device)) return result(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "cushim");
    bool known;
    p->totalGlobalMem = config.memory;
    p->major = config.capability / 10;
    p->minor = config.capability % 10;
    p->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount, &known);
    p->sharedMemPerBlock = SMEM;
    p->sharedMemPerBlockOptin = SMEM_OPTIN;
    p->sharedMemPerMultiprocessor = 228 << 10;
    p->reservedSharedMemPerBlock = 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxBlocksPerMultiProcessor = 32;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->l2CacheSize = attribute(cudaDevAttrL2CacheSize, &known);
    p->memoryBusWidth = attribute(cudaDevAttrGlobalMemoryBusWidth, &known);
    p->concurrentKernels = p->unifiedAddressing = p->canMapHostMemory = 1;
    p->asyncEngineCount = 3;
    return result(cudaSuccess);
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int size, int device) {
    CUSHIM_API;
    if (!is_device(device) || size < 13) return result(cudaErrorInvalidValue);
    snprintf(id, (size_t)size, "0000:%02x:00.0", device);
    return result(no_device());
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    CUSHIM_API;
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return result(no_device());
}
cudaError_t cudaDeviceReset(void) {
    CUSHIM_API;
    finish_all();
    return result(cudaSuccess);
}

/* ---- kernels */

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute a, int value) {
    CUSHIM_API;
    if (!kernel) return result(cudaErrorInvalidDeviceFunction);
    if (a == cudaFuncAttributePreferredSharedMemoryCarveout)
        return result(value >= -1 && value <= 100 ? cudaSuccess : cudaErrorInvalidValue);
    if (a != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        (size_t)value > SMEM_OPTIN)
        return result(cudaErrorInvalidValue);
    smem_limits[kernel] = (size_t)value;
    return result(cudaSuccess);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, const void *kernel) {
    CUSHIM_API;
    if (!kernel) return result(cudaErrorInvalidDeviceFunction);
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = 1024;
    a->numRegs = 32;
    a->binaryVersion = a->ptxVersion = config.capability;
    a->maxDynamicSharedSizeBytes = (int)allowed_smem(kernel);
    return result(cudaSuccess);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *kernel,
                                                          int threads, size_t smem) {
    CUSHIM_API;
    if (!kernel || threads < 1 || threads > 1024 || smem > allowed_smem(kernel))
        return result(cudaErrorInvalidValue);
    int by_threads = 2048 / ((threads + 31) / 32 * 32);
    int by_smem = (int)((228u << 10) / (smem + 1024));
    int n = by_threads < by_smem ? by_threads : by_smem;
    *blocks = n < 32 ? n : 32;
    return result(cudaSuccess);
}

/* ---- errors */

cudaError_t cudaGetLastError(void) {
    CUSHIM_API;
    cudaError_t e = faulted() ? cudaErrorLaunchFailure : last_error;
    last_error = cudaSuccess;
    return e;
}
cudaError_t cudaPeekAtLastError(void) {
    CUSHIM_API;
    return faulted() ? cudaErrorLaunchFailure : last_error;
}

#define CUSHIM_ERRORS(X)                                                                       \
    X(cudaSuccess, "no error")                                                                 \
    X(cudaErrorInvalidValue, "invalid argument")                                               \
    X(cudaErrorMemoryAllocation, "out of memory")                                              \
    X(cudaErrorInvalidConfiguration, "invalid configuration argument")                         \
    X(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy")                    \
    X(cudaErrorInsufficientDriver,                                                             \
      "CUDA driver version is insufficient for CUDA runtime version")                          \
    X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                 \
    X(cudaErrorInvalidDevice, "invalid device ordinal")                                        \
    X(cudaErrorInvalidDeviceFunction, "invalid device function")                               \
    X(cudaErrorInvalidResourceHandle, "invalid resource handle")                               \
    X(cudaErrorNotReady, "device not ready")                                                   \
    X(cudaErrorLaunchFailure, "unspecified launch failure")                                    \
    X(cudaErrorHostMemoryAlreadyRegistered,                                                    \
      "part or all of the requested memory range is already mapped")                           \
    X(cudaErrorHostMemoryNotRegistered,                                                        \
      "pointer does not correspond to a registered memory region")                             \
    X(cudaErrorIllegalState, "the operation cannot be performed in the present state")         \
    X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")   \
    X(cudaErrorStreamCaptureInvalidated,                                                       \
      "operation failed due to a previous error during capture")                               \
    X(cudaErrorStreamCaptureUnmatched, "operation failed because the capture began elsewhere") \
    X(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work")                    \
    X(cudaErrorStreamCaptureIsolation,                                                         \
      "dependency created on uncaptured work in another stream")                               \
    X(cudaErrorStreamCaptureImplicit,                                                          \
      "operation would make the legacy stream depend on a capturing blocking stream")          \
    X(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a "        \
                              "capturing stream")

const char *cudaGetErrorString(cudaError_t e) {
    switch (e) {
#define X(name, text)                                                                          \
    case name: return text;
        CUSHIM_ERRORS(X)
#undef X
    default: return "unrecognized error code";
    }
}
const char *cudaGetErrorName(cudaError_t e) {
    switch (e) {
#define X(name, text)                                                                          \
    case name: return #name;
        CUSHIM_ERRORS(X)
#undef X
    default: return "unrecognized error code";
    }
}

} // extern "C"
