// A CUDA runtime without a GPU: it reports H100s, hands out addresses, computes nothing, and watches.
//
// Preloaded into a process, it lets PyTorch make real CUDA tensors: the caching allocator counts real bytes, kernels are
// "launched" without effect. Counted is what the host does to the device: copies of memory that is not page-locked,
// waits for the device, and copies to the host whose results nobody has waited for (`nullgpu_*` below).
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define API __attribute__((visibility("default")))
#define OK return cudaSuccess
#define DEVICES 8
#define BLOCKS 65536
#define EVENTS 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local int current = 0;
static size_t used[DEVICES];

// What was watched.
static long pageable = 0, waits = 0;
static long copied[DEVICES], settled[DEVICES];  // copies to the host queued, and those waited for
static int event_device[EVENTS];
static long event_copies[EVENTS];
API long nullgpu_pageable(void) { return pageable; }
API long nullgpu_waits(void) { return waits; }
API long nullgpu_unsettled(void) {
  long found = 0;
  for (int d = 0; d < DEVICES; d++) found += copied[d] - settled[d];
  return found;
}

static int number(const char *name, int otherwise) {
  const char *value = getenv(name);
  return value ? atoi(value) : otherwise;
}
static size_t total(void) { return (size_t)number("NULLGPU_GIB", 79) << 30; }

// Memory: address space without anything behind it until it is touched.
enum owner { PINNED = -1, FREE = -2 };
static struct { uintptr_t at; size_t bytes; int owner; } blocks[BLOCKS];
static int count = 0;
static void *take(size_t bytes, int owner) {
  bytes = bytes ? bytes : 1;
  void *at = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return 0;
  pthread_mutex_lock(&lock);
  int place = 0;
  while (place < count && blocks[place].owner != FREE) place++;
  if (place == BLOCKS) abort();
  if (place == count) count++;
  blocks[place].at = (uintptr_t)at, blocks[place].bytes = bytes, blocks[place].owner = owner;
  if (owner >= 0) used[owner] += bytes;
  pthread_mutex_unlock(&lock);
  return at;
}
static void give(void *at) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < count; i++)
    if (blocks[i].owner != FREE && blocks[i].at == (uintptr_t)at) {
      if (blocks[i].owner >= 0) used[blocks[i].owner] -= blocks[i].bytes;
      munmap(at, blocks[i].bytes);
      blocks[i].owner = FREE;
      break;
    }
  pthread_mutex_unlock(&lock);
}
static int owner_of(const void *at) {
  int found = FREE;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < count && found == FREE; i++)
    if (blocks[i].owner != FREE && (uintptr_t)at - blocks[i].at < blocks[i].bytes) found = blocks[i].owner;
  pthread_mutex_unlock(&lock);
  return found;
}
API cudaError_t cudaMalloc(void **at, size_t bytes) {
  *at = used[current] + bytes > total() ? 0 : take(bytes, current);
  return *at ? cudaSuccess : cudaErrorMemoryAllocation;
}
API cudaError_t cudaFree(void *at) { give(at); OK; }
API cudaError_t cudaHostAlloc(void **at, size_t bytes, unsigned flags) { *at = take(bytes, PINNED); OK; }
API cudaError_t cudaMallocHost(void **at, size_t bytes) { *at = take(bytes, PINNED); OK; }
API cudaError_t cudaFreeHost(void *at) { give(at); OK; }
API cudaError_t cudaMemGetInfo(size_t *left, size_t *all) { *all = total(), *left = total() - used[current]; OK; }
API cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *at) {
  int owner = owner_of(at);
  memset(found, 0, sizeof *found);
  found->type = owner >= 0 ? cudaMemoryTypeDevice : owner == PINNED ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  found->device = owner >= 0 ? owner : current;
  OK;
}

// Copies. Values read back are 0.
static void copy(void *to, const void *from, size_t bytes, int waited) {
  int there = owner_of(to), here = owner_of(from);
  if (there == FREE || here == FREE) pageable++;
  if (there < 0 && here >= 0) {
    memset(to, 0, bytes);
    copied[current]++;
  }
  if (waited) waits++, settled[current] = copied[current];
}
API cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
  copy(to, from, bytes, 0);
  OK;
}
API cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
  copy(to, from, bytes, 1);
  OK;
}
API cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t stream) { OK; }

// Streams and events. The default stream is the current device's; an event stands for what was queued there before it.
static uintptr_t handle = 0;
static void *next(void) { return (void *)(16 * __sync_add_and_fetch(&handle, 1)); }
static cudaError_t wait_all(void) { waits++, settled[current] = copied[current]; OK; }
static unsigned slot(cudaEvent_t event) { return (uintptr_t)event / 16 % EVENTS; }
API cudaError_t cudaDeviceSynchronize(void) { return wait_all(); }
API cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return wait_all(); }
API cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  int device = event_device[slot(event)];
  waits++;
  if (settled[device] < event_copies[slot(event)]) settled[device] = event_copies[slot(event)];
  OK;
}
API cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event_device[slot(event)] = current, event_copies[slot(event)] = copied[current];
  OK;
}
API cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) { return cudaEventRecord(event, stream); }
API cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) { *ms = 1; OK; }
API cudaError_t cudaStreamCreate(cudaStream_t *made) { *made = next(); OK; }
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t *made, unsigned flags) { *made = next(); OK; }
API cudaError_t cudaStreamCreateWithPriority(cudaStream_t *made, unsigned flags, int priority) { *made = next(); OK; }
API cudaError_t cudaEventCreate(cudaEvent_t *made) { *made = next(); OK; }
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t *made, unsigned flags) { *made = next(); OK; }
API cudaError_t cudaStreamDestroy(cudaStream_t stream) { OK; }
API cudaError_t cudaEventDestroy(cudaEvent_t event) { OK; }
API cudaError_t cudaStreamQuery(cudaStream_t stream) { OK; }
API cudaError_t cudaEventQuery(cudaEvent_t event) { OK; }
API cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) { OK; }
API cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *found) { *found = cudaStreamCaptureStatusNone; OK; }
API cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) { OK; }
API cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *found, unsigned long long *id, cudaGraph_t *graph,
                                         const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *size) {
  *found = cudaStreamCaptureStatusNone;
  OK;
}
API cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0, *greatest = -5; OK; }

// Kernels.
API cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) { OK; }
API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *how, const void *kernel, void **arguments) { OK; }
API cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *kernel) {
  memset(found, 0, sizeof *found);
  found->maxThreadsPerBlock = 1024, found->binaryVersion = 90, found->ptxVersion = 90;
  OK;
}
API cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute which, int value) { OK; }
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, const void *kernel, int block, size_t shared) { *n = 4; OK; }
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *kernel, int block, size_t shared, unsigned flags) {
  *n = 4;
  OK;
}

// The cards.
API cudaError_t cudaGetDeviceCount(int *n) {
  if (number("NULLGPU_OLD", 0)) return *n = 0, cudaErrorInsufficientDriver;
  *n = number("NULLGPU_COUNT", 1);
  OK;
}
API cudaError_t cudaGetDevice(int *device) { *device = current; OK; }
API cudaError_t cudaSetDevice(int device) { current = device; OK; }
API cudaError_t cudaDriverGetVersion(int *version) { *version = number("NULLGPU_OLD", 0) ? 11040 : 13020; OK; }
API cudaError_t cudaRuntimeGetVersion(int *version) { *version = 13020; OK; }
API cudaError_t cudaGetLastError(void) { OK; }
API cudaError_t cudaPeekAtLastError(void) { OK; }
API cudaError_t cudaDeviceCanAccessPeer(int *can, int a, int b) { *can = 0; OK; }
API cudaError_t cudaDeviceGetPCIBusId(char *id, int bytes, int device) { strncpy(id, "0000:00:00.0", bytes); OK; }
API cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int device) {
  switch (which) {
    case cudaDevAttrMaxThreadsPerBlock: case cudaDevAttrMaxBlockDimX: case cudaDevAttrMaxBlockDimY: *value = 1024; break;
    case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *value = 65535; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrComputeCapabilityMajor: *value = number("NULLGPU_MAJOR", 9); break;
    default: *value = 0;
  }
  OK;
}
API cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *card, int device) {
  memset(card, 0, sizeof *card);
  strcpy(card->name, "null GPU");
  card->totalGlobalMem = total(), card->major = number("NULLGPU_MAJOR", 9), card->multiProcessorCount = 132;
  card->sharedMemPerBlock = 49152, card->sharedMemPerBlockOptin = 232448, card->sharedMemPerMultiprocessor = 233472;
  card->regsPerBlock = card->regsPerMultiprocessor = 65536, card->totalConstMem = 65536, card->l2CacheSize = 50 << 20;
  card->warpSize = 32, card->maxThreadsPerBlock = 1024, card->maxThreadsPerMultiProcessor = 2048;
  card->maxThreadsDim[0] = card->maxThreadsDim[1] = 1024, card->maxThreadsDim[2] = 64;
  card->maxGridSize[0] = 2147483647, card->maxGridSize[1] = card->maxGridSize[2] = 65535;
  card->maxBlocksPerMultiProcessor = 32, card->memoryBusWidth = 5120, card->textureAlignment = 512, card->unifiedAddressing = 1;
  OK;
}
