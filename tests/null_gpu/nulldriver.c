// libcuda.so.1 of the null GPU: the driver's functions that PyTorch looks up, all of which succeed.
#define API __attribute__((visibility("default")))
#define YES(name) API int name(void) { return 0; }
YES(cuInit) YES(cuCtxSetCurrent) YES(cuFuncSetAttribute) YES(cuFuncSetCacheConfig) YES(cuLaunchCooperativeKernel)
YES(cuLaunchKernel) YES(cuLaunchKernelEx) YES(cuLinkAddData_v2) YES(cuLinkComplete) YES(cuLinkCreate_v2) YES(cuModuleUnload)
YES(cuPointerGetAttribute) YES(cuPointerGetAttributes) YES(cuTensorMapEncodeTiled) YES(cuTensorMapEncodeIm2col) YES(cuCtxSetLimit)
API int cuGetErrorString(int error, const char **text) { *text = "null"; return 0; }
API int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
API int cuModuleLoad(void **module, const char *file) { *module = (void *)32; return 0; }
API int cuModuleLoadData(void **module, const void *image) { *module = (void *)32; return 0; }
API int cuModuleLoadDataEx(void **module, const void *image, int n, void *o, void **v) { *module = (void *)32; return 0; }
API int cuModuleGetFunction(void **function, void *module, const char *name) { *function = (void *)48; return 0; }
API int cuCtxGetCurrent(void **context) { *context = (void *)16; return 0; }
API int cuCtxGetDevice(int *device) { *device = 0; return 0; }
API int cuDeviceGet(int *device, int index) { *device = index; return 0; }
API int cuDeviceGetCount(int *n) { *n = 1; return 0; }
API int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)16; return 0; }
API int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0, *active = 1; return 0; }
API int cuStreamIsCapturing(void *stream, int *found) { *found = 0; return 0; }
API int cuOccupancyMaxActiveClusters(int *n, void *function, void *how) { *n = 1; return 0; }
API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *function, int block, unsigned long shared) { *n = 4; return 0; }
API int cuCtxGetLimit(unsigned long *value, int which) { *value = 0; return 0; }
API int cuFuncGetAttribute(int *value, int which, void *function) {
  *value = which == 0 ? 1024 : which == 4 ? 64 : 0;  // threads in a block, registers
  return 0;
}
API int cuDeviceGetAttribute(int *value, int which, int device) {
  static const int known[][2] = {{10, 32},     {12, 65536}, {13, 1980000}, {16, 132},    {36, 2619000},
                                 {37, 5120},   {75, 9},     {76, 0},       {81, 233472}, {97, 232448}};
  *value = 0;
  for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i][0] == which) *value = known[i][1];
  return 0;
}
