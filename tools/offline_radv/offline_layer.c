// A Vulkan layer that lets a driver without its hardware open a device and compile: RADV under RADV_FORCE_FAMILY.
//
// Such a driver knows its GPU, but has no kernel driver behind it: it reports no memory, and cannot allocate, submit or
// wait. The layer stands in front and answers those calls itself. Memory is malloc, command buffers stay empty, every
// wait is over at once: whatever was dispatched has no result. What is left to the driver is what it can do anywhere:
// say what the GPU offers, and compile pipelines.
//
// With OFFLINE_RADV_STATISTICS set to a path, one line of JSON about each compiled pipeline is added to that file:
// {"wave": 64, "statistics": {"VGPRs": 48, ...}}, as VK_KHR_pipeline_executable_properties tells.
#define VK_NO_PROTOTYPES
#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAP_BYTES (64ull << 30)
#define MOST_EXECUTABLES 8
#define MOST_STATISTICS 64
#define MOST_EXTENSIONS 256
#define STATISTICS_EXTENSION "VK_KHR_pipeline_executable_properties"

static PFN_vkGetInstanceProcAddr instance_next;  // the driver's functions, or those of the next layer
static PFN_vkGetDeviceProcAddr device_next;

#define NEXT(device, name) ((PFN_vk##name)device_next(device, "vk" #name))

// Calls that succeed and do nothing. One function serves them all: it reads none of its arguments, and the caller removes
// them (so it is with the C calling conventions of x86-64 and AArch64, the only ones that desktop Vulkan has on Linux).
static const char *const IGNORED[] = {
    "QueueSubmit", "QueueSubmit2", "QueueWaitIdle", "DeviceWaitIdle", "WaitForFences", "GetFenceStatus", "ResetFences",
    "WaitSemaphores", "DestroyFence", "DestroySemaphore", "UnmapMemory", "FlushMappedMemoryRanges",
    "InvalidateMappedMemoryRanges", "BindBufferMemory", "BindBufferMemory2", "UpdateDescriptorSets",
    "BeginCommandBuffer", "EndCommandBuffer", "CmdPipelineBarrier", "CmdPipelineBarrier2", "CmdFillBuffer",
    "CmdCopyBuffer", "CmdBindPipeline", "CmdBindDescriptorSets", "CmdPushConstants", "CmdDispatch",
    "CmdDispatchIndirect", "CmdResetQueryPool", "CmdWriteTimestamp", "CmdCopyQueryPoolResults",
};

static VkResult nothing(void) { return VK_SUCCESS; }

// Fences and semaphores are names that nobody looks up.

static uint64_t last_handle = 0x1000;

static VKAPI_ATTR VkResult VKAPI_CALL CreateFence(VkDevice device, const VkFenceCreateInfo *info,
                                                  const VkAllocationCallbacks *allocator, VkFence *fence) {
  *fence = (VkFence)(uintptr_t)(last_handle += 16);
  return VK_SUCCESS;
}

static VKAPI_ATTR VkResult VKAPI_CALL CreateSemaphore(VkDevice device, const VkSemaphoreCreateInfo *info,
                                                      const VkAllocationCallbacks *allocator, VkSemaphore *semaphore) {
  *semaphore = (VkSemaphore)(uintptr_t)(last_handle += 16);
  return VK_SUCCESS;
}

static VKAPI_ATTR VkResult VKAPI_CALL GetSemaphoreCounterValue(VkDevice device, VkSemaphore semaphore, uint64_t *value) {
  *value = 1ull << 40;  // further than any work waits for
  return VK_SUCCESS;
}

// Memory: one unified heap, made of malloc when it is mapped. The driver never sees it.

typedef struct {
  VkDeviceSize size;
  char *bytes;
} Memory;

static VKAPI_ATTR VkResult VKAPI_CALL AllocateMemory(VkDevice device, const VkMemoryAllocateInfo *info,
                                                     const VkAllocationCallbacks *allocator, VkDeviceMemory *memory) {
  Memory *made = calloc(1, sizeof *made);
  if (!made) return VK_ERROR_OUT_OF_HOST_MEMORY;
  made->size = info->allocationSize;
  *memory = (VkDeviceMemory)(uintptr_t)made;
  return VK_SUCCESS;
}

static VKAPI_ATTR void VKAPI_CALL FreeMemory(VkDevice device, VkDeviceMemory memory,
                                             const VkAllocationCallbacks *allocator) {
  Memory *freed = (Memory *)(uintptr_t)memory;
  if (freed) free(freed->bytes);
  free(freed);
}

static VKAPI_ATTR VkResult VKAPI_CALL MapMemory(VkDevice device, VkDeviceMemory memory, VkDeviceSize offset,
                                                VkDeviceSize size, VkMemoryMapFlags flags, void **at) {
  Memory *mapped = (Memory *)(uintptr_t)memory;
  if (!mapped->bytes) mapped->bytes = calloc(1, mapped->size);
  if (!mapped->bytes) return VK_ERROR_MEMORY_MAP_FAILED;
  *at = mapped->bytes + offset;
  return VK_SUCCESS;
}

static VKAPI_ATTR void VKAPI_CALL GetBufferMemoryRequirements(VkDevice device, VkBuffer buffer,
                                                              VkMemoryRequirements *needed) {
  NEXT(device, GetBufferMemoryRequirements)(device, buffer, needed);
  needed->memoryTypeBits = 3;
}

static VKAPI_ATTR void VKAPI_CALL GetBufferMemoryRequirements2(VkDevice device,
                                                               const VkBufferMemoryRequirementsInfo2 *info,
                                                               VkMemoryRequirements2 *needed) {
  GetBufferMemoryRequirements(device, info->buffer, &needed->memoryRequirements);
}

static VKAPI_ATTR void VKAPI_CALL GetPhysicalDeviceMemoryProperties(VkPhysicalDevice gpu,
                                                                    VkPhysicalDeviceMemoryProperties *memory) {
  *memory = (VkPhysicalDeviceMemoryProperties){
      .memoryHeapCount = 1,
      .memoryHeaps = {{HEAP_BYTES, VK_MEMORY_HEAP_DEVICE_LOCAL_BIT}},
      .memoryTypeCount = 2,
      .memoryTypes = {{VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0},
                      {VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                           VK_MEMORY_PROPERTY_HOST_COHERENT_BIT | VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
                       0}},
  };
}

static VKAPI_ATTR void VKAPI_CALL GetPhysicalDeviceMemoryProperties2(VkPhysicalDevice gpu,
                                                                     VkPhysicalDeviceMemoryProperties2 *memory) {
  GetPhysicalDeviceMemoryProperties(gpu, &memory->memoryProperties);
  for (VkBaseOutStructure *part = memory->pNext; part; part = part->pNext) {
    if (part->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT) {
      VkPhysicalDeviceMemoryBudgetPropertiesEXT *budget = (void *)part;
      memset(budget->heapBudget, 0, sizeof budget->heapBudget);
      memset(budget->heapUsage, 0, sizeof budget->heapUsage);
      budget->heapBudget[0] = HEAP_BYTES;
    }
  }
}

// Pipelines: compiled by the driver, which is asked for its statistics afterwards.

static void write_statistics(VkDevice device, VkPipeline pipeline, const char *path) {
  VkPipelineExecutablePropertiesKHR executables[MOST_EXECUTABLES] = {0};
  VkPipelineExecutableStatisticKHR statistics[MOST_STATISTICS] = {0};
  VkPipelineInfoKHR which = {VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR, 0, pipeline};
  uint32_t executable_count = MOST_EXECUTABLES;
  for (int i = 0; i < MOST_EXECUTABLES; i++)
    executables[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR;
  for (int i = 0; i < MOST_STATISTICS; i++)
    statistics[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
  NEXT(device, GetPipelineExecutablePropertiesKHR)(device, &which, &executable_count, executables);
  FILE *file = fopen(path, "a");
  if (!file) {
    perror(path);
    abort();
  }
  for (uint32_t e = 0; e < executable_count; e++) {
    VkPipelineExecutableInfoKHR part = {VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, 0, pipeline, e};
    uint32_t count = MOST_STATISTICS;
    NEXT(device, GetPipelineExecutableStatisticsKHR)(device, &part, &count, statistics);
    fprintf(file, "{\"wave\": %" PRIu32 ", \"statistics\": {", executables[e].subgroupSize);
    for (uint32_t i = 0; i < count; i++) {
      fprintf(file, "%s\"%s\": ", i ? ", " : "", statistics[i].name);
      if (statistics[i].format == VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR)
        fprintf(file, "%g", statistics[i].value.f64);
      else if (statistics[i].format == VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR)
        fprintf(file, "%" PRIu32, statistics[i].value.b32);
      else
        fprintf(file, "%" PRIu64, statistics[i].value.u64);
    }
    fprintf(file, "}}\n");
  }
  fclose(file);
}

static VKAPI_ATTR VkResult VKAPI_CALL CreateComputePipelines(VkDevice device, VkPipelineCache cache, uint32_t count,
                                                             const VkComputePipelineCreateInfo *infos,
                                                             const VkAllocationCallbacks *allocator,
                                                             VkPipeline *pipelines) {
  const char *path = getenv("OFFLINE_RADV_STATISTICS");
  VkComputePipelineCreateInfo *asked = malloc(count * sizeof *asked);
  if (!asked) return VK_ERROR_OUT_OF_HOST_MEMORY;
  memcpy(asked, infos, count * sizeof *asked);
  for (uint32_t i = 0; i < count; i++) asked[i].flags |= path ? VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR : 0;
  VkResult result = NEXT(device, CreateComputePipelines)(device, cache, count, asked, allocator, pipelines);
  free(asked);
  for (uint32_t i = 0; result == VK_SUCCESS && path && i < count; i++) write_statistics(device, pipelines[i], path);
  return result;
}

// Creating the instance and the device: each layer takes the address of the next from a list and moves the list on. The
// list is handed over as constant, yet layers are meant to change it.

static void *layer_link(const void *list, VkStructureType type) {
  for (const VkBaseInStructure *part = list; part; part = part->pNext)
    if (part->sType == type && ((const VkLayerInstanceCreateInfo *)part)->function == VK_LAYER_LINK_INFO)
      return (void *)part;
  return NULL;
}

static VKAPI_ATTR VkResult VKAPI_CALL CreateInstance(const VkInstanceCreateInfo *info,
                                                     const VkAllocationCallbacks *allocator, VkInstance *instance) {
  VkLayerInstanceCreateInfo *link = layer_link(info->pNext, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO);
  if (!link) return VK_ERROR_INITIALIZATION_FAILED;
  instance_next = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  link->u.pLayerInfo = link->u.pLayerInfo->pNext;
  return ((PFN_vkCreateInstance)instance_next(NULL, "vkCreateInstance"))(info, allocator, instance);
}

static VKAPI_ATTR VkResult VKAPI_CALL CreateDevice(VkPhysicalDevice gpu, const VkDeviceCreateInfo *info,
                                                   const VkAllocationCallbacks *allocator, VkDevice *device) {
  VkLayerDeviceCreateInfo *link = layer_link(info->pNext, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO);
  if (!link || info->enabledExtensionCount >= MOST_EXTENSIONS) return VK_ERROR_INITIALIZATION_FAILED;
  PFN_vkGetInstanceProcAddr next = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  device_next = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
  link->u.pLayerInfo = link->u.pLayerInfo->pNext;

  const char *extensions[MOST_EXTENSIONS];
  uint32_t count = info->enabledExtensionCount;
  memcpy(extensions, info->ppEnabledExtensionNames, count * sizeof *extensions);
  extensions[count++] = STATISTICS_EXTENSION;
  VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR feature = {
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR, (void *)info->pNext, VK_TRUE};
  VkDeviceCreateInfo asked = *info;
  asked.pNext = &feature;
  asked.enabledExtensionCount = count;
  asked.ppEnabledExtensionNames = extensions;
  return ((PFN_vkCreateDevice)next(NULL, "vkCreateDevice"))(gpu, &asked, allocator, device);
}

// Looking up functions: ours first, with or without the suffix of the extension that a function began in.

#define ANSWERED(name) {#name, (PFN_vkVoidFunction)name}
static const struct {
  const char *name;
  PFN_vkVoidFunction function;
} OURS[] = {
    ANSWERED(CreateInstance), ANSWERED(CreateDevice), ANSWERED(CreateFence), ANSWERED(CreateSemaphore),
    ANSWERED(GetSemaphoreCounterValue), ANSWERED(AllocateMemory), ANSWERED(FreeMemory), ANSWERED(MapMemory),
    ANSWERED(GetBufferMemoryRequirements), ANSWERED(GetBufferMemoryRequirements2),
    ANSWERED(GetPhysicalDeviceMemoryProperties), ANSWERED(GetPhysicalDeviceMemoryProperties2),
    ANSWERED(CreateComputePipelines),
};

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

static int same(const char *asked, const char *name) {
  size_t length = strlen(name);
  return !strncmp(asked, "vk", 2) && !strncmp(asked + 2, name, length) &&
         (!asked[2 + length] || !strcmp(asked + 2 + length, "KHR"));
}

static PFN_vkVoidFunction ours(const char *asked) {
  for (size_t i = 0; i < COUNT(OURS); i++)
    if (same(asked, OURS[i].name)) return OURS[i].function;
  for (size_t i = 0; i < COUNT(IGNORED); i++)
    if (same(asked, IGNORED[i])) return (PFN_vkVoidFunction)nothing;
  return NULL;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL device_function(VkDevice device, const char *name) {
  PFN_vkVoidFunction found = ours(name);
  return found ? found : device_next(device, name);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL instance_function(VkInstance instance, const char *name) {
  if (!strcmp(name, "vkGetInstanceProcAddr")) return (PFN_vkVoidFunction)instance_function;
  if (!strcmp(name, "vkGetDeviceProcAddr")) return (PFN_vkVoidFunction)device_function;
  PFN_vkVoidFunction found = ours(name);
  return found || !instance_next ? found : instance_next(instance, name);
}

VKAPI_ATTR VkResult VKAPI_CALL vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface *interface) {
  if (interface->loaderLayerInterfaceVersion > 2) interface->loaderLayerInterfaceVersion = 2;
  interface->pfnGetInstanceProcAddr = instance_function;
  interface->pfnGetDeviceProcAddr = device_function;
  interface->pfnGetPhysicalDeviceProcAddr = NULL;
  return VK_SUCCESS;
}
