/* What llama.cpp calls of NVIDIA's driver, found when it is first called: a program that is linked with this starts on a
 * machine without a driver too, and hears there that there is no device. */
#include <cuda.h>
#include <dlfcn.h>
#include <stddef.h>

/* The header renames some functions to their newer versions by macros, hence two steps. */
#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

static void *driver_function(const char *name) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    return driver == NULL ? NULL : dlsym(driver, name);
}

#define FORWARD(name, parameters, arguments)                                        \
    CUresult CUDAAPI name parameters {                                              \
        CUresult (CUDAAPI *call) parameters = driver_function(TEXT(name));          \
        return call == NULL ? CUDA_ERROR_NO_DEVICE : call arguments;                \
    }

FORWARD(cuGetErrorString, (CUresult error, const char **text), (error, text))
FORWARD(cuDeviceGet, (CUdevice *device, int ordinal), (device, ordinal))
FORWARD(cuDeviceGetAttribute, (int *value, CUdevice_attribute attribute, CUdevice device), (value, attribute, device))
FORWARD(cuMemGetAllocationGranularity,
        (size_t *granularity, const CUmemAllocationProp *properties, CUmemAllocationGranularity_flags option),
        (granularity, properties, option))
FORWARD(cuMemCreate,
        (CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *properties,
         unsigned long long flags),
        (handle, size, properties, flags))
FORWARD(cuMemRelease, (CUmemGenericAllocationHandle handle), (handle))
FORWARD(cuMemAddressReserve,
        (CUdeviceptr *address, size_t size, size_t alignment, CUdeviceptr wanted, unsigned long long flags),
        (address, size, alignment, wanted, flags))
FORWARD(cuMemAddressFree, (CUdeviceptr address, size_t size), (address, size))
FORWARD(cuMemMap,
        (CUdeviceptr address, size_t size, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags),
        (address, size, offset, handle, flags))
FORWARD(cuMemUnmap, (CUdeviceptr address, size_t size), (address, size))
FORWARD(cuMemSetAccess, (CUdeviceptr address, size_t size, const CUmemAccessDesc *access, size_t count),
        (address, size, access, count))
