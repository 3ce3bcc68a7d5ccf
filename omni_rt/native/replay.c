/* The replay of captured GPU steps: wgpu-native's own functions, called without Python in between. */
#include "entry.h"

typedef void *make_t(void *parent, const void *descriptor);
typedef void set_pipeline_t(void *pass, void *pipeline);
typedef void set_group_t(void *pass, uint32_t index, void *group, size_t offset_count, const uint32_t *offsets);
typedef void dispatch_t(void *pass, uint32_t x, uint32_t y, uint32_t z);
typedef void submit_t(void *queue, size_t count, void *const *commands);
typedef void drop_t(void *object);

static void encode(const omni_replay_functions *functions, void *pass, const omni_dispatch *dispatches, int64_t count) {
    set_pipeline_t *set_pipeline = (set_pipeline_t *)functions->set_pipeline;
    set_group_t *set_group = (set_group_t *)functions->set_group;
    dispatch_t *dispatch = (dispatch_t *)functions->dispatch;
    uintptr_t last = 0;
    for (int64_t i = 0; i < count; i++) {
        const omni_dispatch *next = &dispatches[i];
        if (next->pipeline != last)
            set_pipeline(pass, (void *)next->pipeline);
        last = next->pipeline;
        set_group(pass, 0, (void *)next->group, 0, 0);
        dispatch(pass, next->x, next->y, next->z);
    }
}

int64_t omni_replay(const omni_replay_functions *functions, uintptr_t device, uintptr_t queue,
                    const omni_dispatch *dispatches, int64_t count, int64_t piece) {
    int64_t submissions = 0;
    for (int64_t at = 0; at < count; at += piece, piece *= 2, submissions++) {
        void *encoder = ((make_t *)functions->create_encoder)((void *)device, 0);
        void *pass = ((make_t *)functions->begin_pass)(encoder, 0);
        encode(functions, pass, dispatches + at, count - at < piece ? count - at : piece);
        ((drop_t *)functions->end_pass)(pass);
        ((drop_t *)functions->release_pass)(pass);
        void *commands = ((make_t *)functions->finish)(encoder, 0);
        ((drop_t *)functions->release_encoder)(encoder);
        ((submit_t *)functions->submit)((void *)queue, 1, &commands);
        ((drop_t *)functions->release_commands)(commands);
    }
    return submissions;
}
