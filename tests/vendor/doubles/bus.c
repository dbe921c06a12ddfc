/* The bus of bus.h. Link with -lpthread. */
#define _GNU_SOURCE
#include "bus.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct filter { uint32_t code, mask; };

struct slot {
    int32_t pid;      /* 0: free */
    int32_t channel;
    int32_t gone;     /* its adapter was unplugged: for good, whatever is plugged in later */
    int32_t exclusive;
    uint32_t mode;
    int32_t on_bus, hears_own_channel, hears_itself;
    uint32_t overrun; /* to be told of */
    struct filter filters[2];
    uint32_t head, tail;
    struct bus_frame ring[BUS_RING];
};

struct shared {
    pthread_mutex_t lock;
    struct bus_channel channels[BUS_CHANNELS];
    struct slot slots[BUS_HANDLES];
};

struct bus {
    char directory[256];
    struct shared *shared;
    int events[BUS_HANDLES];
};

struct bus_handle {
    struct bus *bus;
    struct slot *slot;
    int event;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    pthread_t thread;
    int running, stopping;
    unsigned first, count;
    struct bus_frame queue[BUS_TRANSMIT];
};

int64_t bus_now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void lock(struct shared *shared) {
    if (pthread_mutex_lock(&shared->lock) == EOWNERDEAD) /* its owner was killed */
        pthread_mutex_consistent(&shared->lock);
}

static void unlock(struct shared *shared) { pthread_mutex_unlock(&shared->lock); }

/* ------------------------------------------------------------------------------- the mapping */

struct bus *bus_attach(const char *directory) {
    char path[300];
    pthread_mutexattr_t attributes;
    struct bus *bus;
    int file, is_new;

    if (directory == NULL) directory = getenv(BUS_VARIABLE);
    if (directory == NULL || (bus = calloc(1, sizeof *bus)) == NULL) return NULL;
    snprintf(bus->directory, sizeof bus->directory, "%s", directory);
    snprintf(path, sizeof path, "%s/bus", directory);
    file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) { free(bus); return NULL; }
    flock(file, LOCK_EX);
    is_new = lseek(file, 0, SEEK_END) == 0;
    if (is_new && ftruncate(file, sizeof(struct shared)) != 0) { close(file); free(bus); return NULL; }
    bus->shared = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (is_new && bus->shared != MAP_FAILED) {
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&bus->shared->lock, &attributes);
        for (int i = 0; i < BUS_HANDLES; i++) {
            snprintf(path, sizeof path, "%s/event.%d", directory, i);
            mkfifo(path, 0600);
        }
    }
    flock(file, LOCK_UN);
    close(file);
    if (bus->shared == MAP_FAILED) { free(bus); return NULL; }
    for (int i = 0; i < BUS_HANDLES; i++) bus->events[i] = -1;
    return bus;
}

void bus_detach(struct bus *bus) {
    for (int i = 0; i < BUS_HANDLES; i++)
        if (bus->events[i] >= 0) close(bus->events[i]);
    munmap(bus->shared, sizeof(struct shared));
    free(bus);
}

struct bus_channel *bus_channel(struct bus *bus, int channel) {
    return &bus->shared->channels[channel];
}

/* The FIFO of a handle, in this process. Under the lock. */
static int event_of(struct bus *bus, int number) {
    char path[300];
    if (bus->events[number] < 0) {
        snprintf(path, sizeof path, "%s/event.%d", bus->directory, number);
        bus->events[number] = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    }
    return bus->events[number];
}

static void signal_event(struct bus *bus, struct slot *slot) {
    ssize_t written = write(event_of(bus, (int)(slot - bus->shared->slots)), "!", 1);
    (void)written; /* full: it is readable */
}

static void clear_event(int event) {
    char bytes[64];
    while (read(event, bytes, sizeof bytes) > 0) continue;
}

/* -------------------------------------------------------------------------------- receiving */

static int passes(const struct slot *slot, const struct bus_frame *frame) {
    const struct filter *filter = &slot->filters[(frame->flags & FRAME_EXTENDED) != 0];
    return ((frame->id ^ filter->code) & filter->mask) == 0;
}

/* Under the lock. */
static void push(struct bus *bus, struct slot *slot, const struct bus_frame *frame) {
    struct bus_channel *channel = &bus->shared->channels[slot->channel];
    uint32_t limit = channel->queue ? (uint32_t)channel->queue : BUS_RING - 1;
    uint32_t waiting = slot->head - slot->tail;
    if (waiting >= limit) {
        slot->overrun++;
        channel->lost++;
        return;
    }
    slot->ring[slot->head % BUS_RING] = *frame;
    slot->head++;
    if (waiting == 0) signal_event(bus, slot);
}

enum bus_result bus_read(struct bus_handle *handle, struct bus_frame *frame) {
    struct slot *slot = handle->slot;
    struct shared *shared = handle->bus->shared;
    enum bus_result result = BUS_OK;
    lock(shared);
    shared->channels[slot->channel].reads++;
    if (slot->gone) result = BUS_GONE;
    else if (slot->overrun) {
        slot->overrun = 0;
        result = BUS_OVERRUN;
    } else if (slot->head == slot->tail) result = BUS_EMPTY;
    else {
        *frame = slot->ring[slot->tail % BUS_RING];
        slot->tail++;
        if (slot->head == slot->tail) clear_event(handle->event);
    }
    unlock(shared);
    return result;
}

enum bus_result bus_wait(struct bus_handle *handle, long timeout_ms) {
    struct pollfd event = {.fd = handle->event, .events = POLLIN};
    return poll(&event, 1, (int)timeout_ms) > 0 ? BUS_OK : BUS_EMPTY;
}

int bus_event(struct bus_handle *handle) { return handle->event; }

/* ------------------------------------------------------------------------------ transmitting */

void bus_send_now(struct bus_handle *handle, const struct bus_frame *given) {
    struct shared *shared = handle->bus->shared;
    struct bus_frame frame = *given;
    lock(shared);
    frame.time_us = bus_now_us();
    for (int i = 0; i < BUS_HANDLES; i++) {
        struct slot *slot = &shared->slots[i];
        if (!slot->pid || !slot->on_bus || slot->gone || !passes(slot, &frame)) continue;
        frame.flags = given->flags;
        if (slot == handle->slot) {
            if (!slot->hears_itself) continue;
            frame.flags |= FRAME_OWN;
        } else if (slot->channel == handle->slot->channel && !slot->hears_own_channel) continue;
        push(handle->bus, slot, &frame);
    }
    shared->channels[handle->slot->channel].sent++;
    unlock(shared);
}

static void pause_us(int64_t until_us) {
    struct timespec until = {until_us / 1000000, until_us % 1000000 * 1000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) continue;
}

/* The controller: takes the queue's first frame to the bus, at its speed, when it is there. */
static void *transmit(void *argument) {
    struct bus_handle *handle = argument;
    struct bus_channel *channel = bus_channel(handle->bus, handle->slot->channel);
    int64_t free_us = 0;
    pthread_mutex_lock(&handle->lock);
    for (;;) {
        while (!handle->count && !handle->stopping)
            pthread_cond_wait(&handle->changed, &handle->lock);
        if (handle->stopping) break;
        pthread_mutex_unlock(&handle->lock);
        if (channel->off || channel->silent || handle->slot->gone) {
            pause_us(bus_now_us() + 1000);
            pthread_mutex_lock(&handle->lock);
            continue;
        }
        if (channel->frame_us) {
            int64_t now_us = bus_now_us();
            if (free_us < now_us - 5000) free_us = now_us; /* was idle; else makes up for it */
            free_us += channel->frame_us;
            pause_us(free_us);
        }
        if (!handle->slot->gone) bus_send_now(handle, &handle->queue[handle->first]);
        pthread_mutex_lock(&handle->lock);
        handle->first = (handle->first + 1) % BUS_TRANSMIT;
        handle->count--;
        pthread_cond_broadcast(&handle->changed);
    }
    pthread_mutex_unlock(&handle->lock);
    return NULL;
}

enum bus_result bus_write(struct bus_handle *handle, const struct bus_frame *frame) {
    enum bus_result result = BUS_OK;
    if (handle->slot->gone) return BUS_GONE;
    if (!handle->slot->on_bus) return BUS_FULL; /* linuxcan's VCAN_IOC_SENDMSG says EAGAIN */
    pthread_mutex_lock(&handle->lock);
    if (!handle->running)
        handle->running = pthread_create(&handle->thread, NULL, transmit, handle) == 0;
    if (handle->count == BUS_TRANSMIT) result = BUS_FULL;
    else {
        handle->queue[(handle->first + handle->count) % BUS_TRANSMIT] = *frame;
        handle->count++;
        pthread_cond_broadcast(&handle->changed);
    }
    pthread_mutex_unlock(&handle->lock);
    return result;
}

enum bus_result bus_flush(struct bus_handle *handle, long timeout_ms) {
    struct timespec until;
    int result = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) { until.tv_sec++; until.tv_nsec -= 1000000000; }
    bus_channel(handle->bus, handle->slot->channel)->syncs++;
    pthread_mutex_lock(&handle->lock);
    while (handle->count && !handle->slot->gone && result == 0)
        result = pthread_cond_timedwait(&handle->changed, &handle->lock, &until);
    result = handle->count != 0;
    pthread_mutex_unlock(&handle->lock);
    return handle->slot->gone ? BUS_GONE : result ? BUS_EMPTY : BUS_OK;
}

/* ----------------------------------------------------------------------------------- handles */

static int alive(const struct slot *slot) {
    return slot->pid && (kill(slot->pid, 0) == 0 || errno != ESRCH);
}

/* Why a channel cannot be opened so. Under the lock. */
static enum bus_result refusal(struct shared *shared, int channel, uint32_t mode, int exclusive) {
    if (shared->channels[channel].absent) return BUS_GONE;
    for (int i = 0; i < BUS_HANDLES; i++) {
        struct slot *slot = &shared->slots[i];
        if (slot->channel != channel || slot->gone || !alive(slot)) continue;
        if (exclusive || slot->exclusive || slot->mode != mode) return BUS_BUSY;
    }
    return BUS_OK;
}

enum bus_result bus_open(struct bus *bus, int channel, uint32_t mode, int exclusive, int override,
                         struct bus_handle **opened) {
    struct shared *shared = bus->shared;
    struct bus_handle *handle = calloc(1, sizeof *handle);
    struct slot *slot = NULL;
    enum bus_result result;
    int i, first = 1;
    lock(shared);
    result = override ? (shared->channels[channel].absent ? BUS_GONE : BUS_OK)
                      : refusal(shared, channel, mode, exclusive);
    for (i = 0; i < BUS_HANDLES; i++) {
        if (alive(&shared->slots[i])) first &= shared->slots[i].channel != channel;
        else if (slot == NULL) slot = &shared->slots[i];
    }
    if (result == BUS_OK && slot == NULL) result = BUS_BUSY;
    if (result == BUS_OK) {
        if (first) shared->channels[channel].off = 0; /* its controller is started anew */
        handle->bus = bus;
        handle->slot = slot;
        handle->event = event_of(bus, (int)(slot - shared->slots));
        clear_event(handle->event);
        memset(slot, 0, offsetof(struct slot, ring));
        slot->channel = channel;
        slot->mode = mode;
        slot->exclusive = exclusive;
        slot->on_bus = slot->hears_own_channel = 1;
        slot->pid = getpid();
        pthread_mutex_init(&handle->lock, NULL);
        pthread_cond_init(&handle->changed, NULL);
    }
    unlock(shared);
    if (result != BUS_OK) { free(handle); return result; }
    *opened = handle;
    return BUS_OK;
}

void bus_close(struct bus_handle *handle) {
    pthread_mutex_lock(&handle->lock);
    handle->stopping = 1;
    pthread_cond_broadcast(&handle->changed);
    pthread_mutex_unlock(&handle->lock);
    if (handle->running) pthread_join(handle->thread, NULL);
    lock(handle->bus->shared);
    handle->slot->pid = 0;
    unlock(handle->bus->shared);
    free(handle);
}

enum bus_result bus_state(struct bus_handle *handle) {
    if (handle->slot->gone) return BUS_GONE;
    return bus_channel(handle->bus, handle->slot->channel)->off ? BUS_OFF : BUS_OK;
}

void bus_set(struct bus_handle *handle, int on_bus, int hears_own_channel, int hears_itself) {
    lock(handle->bus->shared);
    handle->slot->on_bus = on_bus;
    handle->slot->hears_own_channel = hears_own_channel;
    handle->slot->hears_itself = hears_itself;
    unlock(handle->bus->shared);
}

void bus_filter(struct bus_handle *handle, int extended, uint32_t code, uint32_t mask) {
    lock(handle->bus->shared);
    handle->slot->filters[extended != 0] = (struct filter){code, mask};
    unlock(handle->bus->shared);
}

/* --------------------------------------------------------------------------------- for tests */

/* Sends frames evenly, `rate` a second; their data is when, on the wall clock, in ns. */
void bus_generate(struct bus_handle *handle, unsigned rate, unsigned count) {
    int64_t began_us = bus_now_us();
    for (unsigned i = 0; i < count; i++) {
        struct bus_frame frame = {.id = i & 0x3FF, .length = 8};
        struct timespec now;
        int64_t now_ns;
        pause_us(began_us + (int64_t)i * 1000000 / rate);
        clock_gettime(CLOCK_REALTIME, &now);
        now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
        memcpy(frame.data, &now_ns, sizeof now_ns);
        bus_send_now(handle, &frame);
    }
}

void bus_unplug(struct bus *bus, int channel, int absent) {
    struct shared *shared = bus->shared;
    lock(shared);
    shared->channels[channel].absent = absent;
    for (int i = 0; absent && i < BUS_HANDLES; i++) {
        struct slot *slot = &shared->slots[i];
        if (!slot->pid || slot->channel != channel) continue;
        slot->gone = 1;
        signal_event(bus, slot);
    }
    unlock(shared);
}

void bus_report(struct bus *bus, int channel, uint32_t status) {
    struct bus_frame frame = {.flags = FRAME_STATUS, .status = status, .time_us = bus_now_us()};
    lock(bus->shared);
    for (int i = 0; i < BUS_HANDLES; i++)
        if (bus->shared->slots[i].pid && bus->shared->slots[i].channel == channel)
            push(bus, &bus->shared->slots[i], &frame);
    unlock(bus->shared);
}

int bus_is_open(struct bus *bus, int channel) {
    int found = 0;
    lock(bus->shared);
    for (int i = 0; i < BUS_HANDLES; i++) {
        struct slot *slot = &bus->shared->slots[i];
        found += slot->channel == channel && !slot->gone && alive(slot);
    }
    unlock(bus->shared);
    return found;
}
