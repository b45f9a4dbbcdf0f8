/* A stand-in for NVIDIA's management library with two GPUs, for the real pynvml to load.
 * Of the first version of the memory call it makes an error: that one counts reserved memory in. */
#include <stdio.h>
#include <string.h>

typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_v2;

int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned int flags) { (void)flags; return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
  *device = (void *)(unsigned long)(index + 1);
  return 0;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
  snprintf(uuid, length, "GPU-%lu", (unsigned long)device - 1);
  return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, void *memory) { (void)device; (void)memory; return 3; }
int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *memory) {
  unsigned long long index = (unsigned long)device - 1;
  memory->total = 80000000000ull;
  memory->reserved = 600000000ull;
  memory->used = index == 0 ? 34000000000ull : 0ull;
  memory->free = memory->total - memory->reserved - memory->used;
  return 0;
}
