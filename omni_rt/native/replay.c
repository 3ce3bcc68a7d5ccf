/* The replay of captured GPU steps: a loop over dispatches that calls wgpu-native's own functions. */
#include "entry.h"

typedef void set_pipeline_t(void *pass, void *pipeline);
typedef void set_group_t(void *pass, uint32_t index, void *group, size_t offset_count, const uint32_t *offsets);
typedef void dispatch_t(void *pass, uint32_t x, uint32_t y, uint32_t z);

void omni_replay(const omni_replay_functions *functions, uintptr_t pass, const omni_dispatch *dispatches, int64_t count) {
    set_pipeline_t *set_pipeline = (set_pipeline_t *)functions->set_pipeline;
    set_group_t *set_group = (set_group_t *)functions->set_group;
    dispatch_t *dispatch = (dispatch_t *)functions->dispatch;
    void *encoder = (void *)pass;
    uintptr_t last = 0;
    for (int64_t i = 0; i < count; i++) {
        const omni_dispatch *next = &dispatches[i];
        if (next->pipeline != last)
            set_pipeline(encoder, (void *)next->pipeline);
        last = next->pipeline;
        set_group(encoder, 0, (void *)next->group, 0, 0);
        dispatch(encoder, next->x, next->y, next->z);
    }
}
