/* A double of Kvaser's libcanlib: one Leaf Pro HS v2 with two channels, numbers 0 and 1.
 *
 * Written from: Kvaser's CANlib help (canlib.h, canstat.h; "Sending and Receiving"), Kvaser's
 * linuxcan, which is published (VCanFunctions.c, VCanFuncUtil.c: which errno is which canERR;
 * VCanOsIf.c), and python-can's interfaces/kvaser (canlib.py, constants.py: the calls it makes).
 *
 * Oddities kept: canWrite on a handle that is off bus says TXBUFOFL, as on a full queue, and on a
 * controller that is bus-off it queues. canWriteSync waits until the whole queue is on the bus,
 * that is, until others have acknowledged it. Overruns are flags of the next message (python-can
 * drops them), of canReadStatus, and a number of the bus statistics. A handle of a device that
 * was unplugged says NOTFOUND. One channel may have several handles, which hear each other with
 * LOCAL_TXECHO only; exclusive ones exclude all but OVERRIDE_EXCLUSIVE. A filter for one format
 * lets the other format through. Time stamps count from when the library was initialized.
 */
#include "bus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

enum { canOK = 0, canERR_PARAM = -1, canERR_NOMSG = -2, canERR_NOTFOUND = -3, canERR_NOCHANNELS = -5,
       canERR_TIMEOUT = -7, canERR_NOTINITIALIZED = -8, canERR_INVHANDLE = -10, canERR_TXBUFOFL = -13,
       canERR_NOT_SUPPORTED = -19 };
enum { MSG_RTR = 1, MSG_STD = 2, MSG_EXT = 4, MSG_ERROR = 32, MSG_TXACK = 64,
       MSGERR_SW_OVERRUN = 0x400, FDMSG_FDF = 0x10000, FDMSG_BRS = 0x20000, FDMSG_ESI = 0x40000,
       MSG_LOCAL_TXACK = 0x10000000 };
enum { OPEN_EXCLUSIVE = 8, OPEN_OVERRIDE = 0x40, OPEN_FD = 0x400, OPEN_FD_NONISO = 0x800 };
enum { IOCTL_FLUSH_TX = 11, IOCTL_TIMER_SCALE = 6, IOCTL_LOCAL_TXECHO = 32, IOCTL_LOCAL_TXACK = 46 };
enum { DATA_CHAN_NO_ON_CARD = 6, DATA_CARD_SERIAL_NO = 7, DATA_DEVDESCR_ASCII = 26 };
enum { STAT_PASSIVE = 1, STAT_BUS_OFF = 2, STAT_ACTIVE = 8, STAT_SW_OVERRUN = 0x400 };

#define CHANNELS 2
#define FIRST 2 /* of the bus; the first ones are PCAN's */
#define HANDLES 16

struct handle { struct bus_handle *bus; int channel, is_fd, on, echo, overrun, told; };
struct statistics { unsigned long std, std_remote, ext, ext_remote, errors, load, overruns; };

static struct bus *bus;
static struct handle handles[HANDLES];
static int64_t began_us;

static struct handle *handle_of(int number) {
    return number >= 0 && number < HANDLES && handles[number].bus != NULL ? &handles[number] : NULL;
}

static int status_of(enum bus_result result) {
    switch (result) {
    case BUS_OK: case BUS_OFF: return canOK;
    case BUS_FULL: return canERR_TXBUFOFL;
    case BUS_EMPTY: return canERR_NOMSG;
    case BUS_BUSY: return canERR_NOCHANNELS;
    default: return canERR_NOTFOUND; /* ENODEV */
    }
}

API void canInitializeLibrary(void) {
    if (bus == NULL) bus = bus_attach(NULL);
    if (began_us == 0) began_us = bus_now_us();
}

API short canGetVersion(void) { return 5 << 8 | 39; }

API int canGetErrorText(int error, char *buffer, unsigned size) {
    static const struct { int code; const char *text; } texts[] = {
        {canOK, "No error"}, {canERR_PARAM, "Error in parameter"},
        {canERR_NOMSG, "No messages available"}, {canERR_NOTFOUND, "Specified device not found"},
        {canERR_NOCHANNELS, "No channels available"}, {canERR_TIMEOUT, "Timeout occurred"},
        {canERR_NOTINITIALIZED, "Library not initialized"},
        {canERR_INVHANDLE, "Handle is invalid"}, {canERR_TXBUFOFL, "Transmit buffer overflow"},
        {canERR_NOT_SUPPORTED, "Not supported"},
    };
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].code == error) {
            snprintf(buffer, size, "%s", texts[i].text);
            return canOK;
        }
    snprintf(buffer, size, "Unknown error (%d)", error);
    return canERR_PARAM;
}

/* ------------------------------------------------------------------------------------ channels */

API int canGetNumberOfChannels(int *count) {
    if (bus == NULL) return canERR_NOTINITIALIZED;
    *count = 0;
    for (int i = 0; i < CHANNELS; i++) *count += !bus_channel(bus, FIRST + i)->absent;
    return canOK;
}

API int canGetChannelData(int channel, int item, void *buffer, size_t size) {
    uint64_t serial = 20042;
    uint32_t number = (uint32_t)channel;
    if (bus == NULL) return canERR_NOTINITIALIZED;
    if (channel < 0 || channel >= CHANNELS || bus_channel(bus, FIRST + channel)->absent)
        return canERR_NOTFOUND;
    switch (item) {
    case DATA_DEVDESCR_ASCII: snprintf(buffer, size, "Kvaser Leaf Pro HS v2"); return canOK;
    case DATA_CARD_SERIAL_NO: memcpy(buffer, &serial, size < 8 ? size : 8); return canOK;
    case DATA_CHAN_NO_ON_CARD: memcpy(buffer, &number, size < 4 ? size : 4); return canOK;
    default: return canERR_PARAM;
    }
}

API int canOpenChannel(int channel, int flags) {
    int number = 0;
    enum bus_result result;
    if (bus == NULL) return canERR_NOTINITIALIZED;
    if (channel < 0 || channel >= CHANNELS) return canERR_NOTFOUND;
    while (number < HANDLES && handles[number].bus != NULL) number++;
    if (number == HANDLES) return canERR_NOCHANNELS;
    result = bus_open(bus, FIRST + channel, 0, (flags & OPEN_EXCLUSIVE) != 0,
                      (flags & OPEN_OVERRIDE) != 0, &handles[number].bus);
    if (result != BUS_OK) {
        handles[number].bus = NULL;
        return status_of(result);
    }
    bus_set(handles[number].bus, 0, 1, 0); /* it goes on bus later */
    handles[number].channel = channel;
    handles[number].is_fd = (flags & (OPEN_FD | OPEN_FD_NONISO)) != 0;
    handles[number].on = handles[number].overrun = handles[number].told = 0;
    handles[number].echo = 1;
    return number;
}

API int canClose(int number) {
    struct handle *handle = handle_of(number);
    if (handle == NULL) return canERR_INVHANDLE;
    bus_close(handle->bus);
    handle->bus = NULL;
    return canOK;
}

static int go(int number, int on) {
    struct handle *handle = handle_of(number);
    if (handle == NULL) return canERR_INVHANDLE;
    if (bus_state(handle->bus) == BUS_GONE) return canERR_NOTFOUND;
    handle->on = on;
    bus_set(handle->bus, on, handle->echo, 0);
    return canOK;
}

API int canBusOn(int number) { return go(number, 1); }
API int canBusOff(int number) { return go(number, 0); }

API int canSetBusParams(int number, long rate, unsigned tseg1, unsigned tseg2, unsigned sjw,
                        unsigned samples, unsigned mode) {
    (void)tseg2, (void)sjw, (void)samples, (void)mode;
    if (handle_of(number) == NULL) return canERR_INVHANDLE;
    return rate == 0 || (rate > 0 && tseg1 == 0) ? canERR_PARAM : canOK;
}

API int canSetBusParamsC200(int number, char btr0, char btr1) {
    (void)btr0, (void)btr1;
    return handle_of(number) == NULL ? canERR_INVHANDLE : canOK;
}

API int canSetBusParamsFd(int number, long rate, unsigned tseg1, unsigned tseg2, unsigned sjw) {
    (void)rate, (void)tseg1, (void)tseg2, (void)sjw;
    if (handle_of(number) == NULL) return canERR_INVHANDLE;
    return handle_of(number)->is_fd ? canOK : canERR_PARAM;
}

API int canSetBusOutputControl(int number, unsigned mode) {
    if (handle_of(number) == NULL) return canERR_INVHANDLE;
    return mode == 1 || mode == 4 ? canOK : canERR_PARAM;
}

API int canSetAcceptanceFilter(int number, unsigned code, unsigned mask, int extended) {
    if (handle_of(number) == NULL) return canERR_INVHANDLE;
    bus_filter(handle_of(number)->bus, extended, code, mask);
    return canOK;
}

API int canIoCtl(int number, unsigned function, void *buffer, unsigned size) {
    struct handle *handle = handle_of(number);
    if (handle == NULL) return canERR_INVHANDLE;
    switch (function) {
    case IOCTL_LOCAL_TXECHO:
        if (buffer == NULL || size < 1) return canERR_PARAM;
        handle->echo = *(char *)buffer;
        bus_set(handle->bus, handle->on, handle->echo, 0);
        return canOK;
    case IOCTL_TIMER_SCALE: /* python-can asks for 10 us, the only one there is here */
        return buffer != NULL && *(int32_t *)buffer == 10 ? canOK : canERR_PARAM;
    case IOCTL_LOCAL_TXACK:
    case IOCTL_FLUSH_TX: return canOK;
    default: return canERR_PARAM;
    }
}

API short kvFlashLeds(int number, int action, int timeout) {
    (void)action, (void)timeout;
    return handle_of(number) == NULL ? canERR_INVHANDLE : canOK;
}

/* ---------------------------------------------------------------------------------- receiving */

API int canReadWait(int number, long *id, void *data, unsigned *length, unsigned *flags,
                    unsigned long *stamp, long timeout_ms) {
    struct handle *handle = handle_of(number);
    struct bus_frame frame;
    enum bus_result result;
    int64_t until_us = bus_now_us() + (int64_t)(unsigned)timeout_ms * 1000;
    if (handle == NULL) return canERR_INVHANDLE;
    for (;;) {
        result = bus_read(handle->bus, &frame);
        if (result == BUS_OVERRUN) {
            handle->overrun++;
            handle->told = 0;
            continue;
        }
        if (result == BUS_OK && frame.flags & FRAME_STATUS) continue;
        if (result == BUS_OK && frame.flags & FRAME_FD && !handle->is_fd) continue;
        if (result != BUS_EMPTY) break;
        if (bus_now_us() >= until_us) return canERR_NOMSG;
        bus_wait(handle->bus, (until_us - bus_now_us() + 999) / 1000);
    }
    if (result != BUS_OK) return status_of(result);
    *id = frame.id;
    memcpy(data, frame.data, frame.length);
    *length = frame.length;
    *flags = frame.flags & FRAME_EXTENDED ? MSG_EXT : MSG_STD;
    if (frame.flags & FRAME_REMOTE) *flags |= MSG_RTR;
    if (frame.flags & FRAME_ERROR) *flags |= MSG_ERROR;
    if (frame.flags & FRAME_FD) *flags |= FDMSG_FDF;
    if (frame.flags & FRAME_BRS) *flags |= FDMSG_BRS;
    if (frame.flags & FRAME_ESI) *flags |= FDMSG_ESI;
    if (handle->overrun && !handle->told) {
        *flags |= MSGERR_SW_OVERRUN;
        handle->told = 1;
    }
    *stamp = (unsigned long)((frame.time_us - began_us) / 10);
    return canOK;
}

API int kvReadTimer(int number, unsigned *time) {
    if (handle_of(number) == NULL) return canERR_INVHANDLE;
    *time = (unsigned)((bus_now_us() - began_us) / 10);
    return canOK;
}

API int canReadStatus(int number, unsigned long *flags) {
    struct handle *handle = handle_of(number);
    if (handle == NULL) return canERR_INVHANDLE;
    switch (bus_state(handle->bus)) {
    case BUS_GONE: return canERR_NOTFOUND;
    case BUS_OFF: *flags = STAT_BUS_OFF; break;
    default: *flags = bus_channel(bus, FIRST + handle->channel)->heavy ? STAT_PASSIVE : STAT_ACTIVE;
    }
    if (handle->overrun) *flags |= STAT_SW_OVERRUN;
    return canOK;
}

API int canRequestBusStatistics(int number) {
    struct handle *handle = handle_of(number);
    if (handle == NULL) return canERR_INVHANDLE;
    return bus_state(handle->bus) == BUS_GONE ? canERR_NOTFOUND : canOK;
}

API int canGetBusStatistics(int number, struct statistics *statistics, size_t size) {
    struct handle *handle = handle_of(number);
    if (handle == NULL) return canERR_INVHANDLE;
    if (size < sizeof *statistics) return canERR_PARAM;
    memset(statistics, 0, sizeof *statistics);
    for (int i = 0; i < HANDLES; i++) /* of the channel, whichever handle asks */
        if (handles[i].bus != NULL && handles[i].channel == handle->channel)
            statistics->overruns += (unsigned long)handles[i].overrun;
    return canOK;
}

/* -------------------------------------------------------------------------------- transmitting */

API int canWrite(int number, long id, void *data, unsigned length, unsigned flags) {
    struct handle *handle = handle_of(number);
    struct bus_frame frame = {.id = (uint32_t)id, .length = length};
    if (handle == NULL) return canERR_INVHANDLE;
    if (id >= (flags & MSG_EXT ? 1 << 29 : 1 << 11) || length > (flags & FDMSG_FDF ? 64u : 8u))
        return canERR_PARAM;
    if (flags & FDMSG_ESI || (flags & FDMSG_FDF && !handle->is_fd)) return canERR_PARAM;
    frame.flags = (flags & MSG_EXT ? FRAME_EXTENDED : 0u) | (flags & MSG_RTR ? FRAME_REMOTE : 0u) |
                  (flags & FDMSG_FDF ? FRAME_FD : 0u) | (flags & FDMSG_BRS ? FRAME_BRS : 0u);
    if (!(flags & MSG_RTR)) memcpy(frame.data, data, length);
    return status_of(bus_write(handle->bus, &frame));
}

API int canWriteSync(int number, unsigned long timeout_ms) {
    struct handle *handle = handle_of(number);
    if (handle == NULL) return canERR_INVHANDLE;
    switch (bus_flush(handle->bus, (long)timeout_ms)) {
    case BUS_OK: return canOK;
    case BUS_EMPTY: return canERR_TIMEOUT;
    default: return canERR_NOTFOUND;
    }
}
