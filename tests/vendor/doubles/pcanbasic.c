/* A double of PEAK-System's libpcanbasic: one PCAN-USB Pro FD, PCAN_USBBUS1 and PCAN_USBBUS2.
 *
 * Written from: PCAN-Basic's documentation (return values of each function; "The receive queue
 * can contain up to 32767 messages"), PEAK's libpcanbasic 4.7 for Linux, which is published
 * (pcbcore.c: errno to status, status messages, error frames; pcbcore's tables of texts), and
 * python-can's interfaces/pcan (basic.py: structures, how the library is found).
 *
 * Oddities kept: a change of the bus's state is read once, as the return value of CAN_Read, and
 * is no message; "error active" is read as PCAN_ERROR_OK with a message of type STATUS, which
 * python-can takes for a data frame. A handle of a device that was unplugged stays invalid
 * (ILLHW), its event readable. Both channels have the same device number until somebody changes
 * it. Texts of combined codes do not exist. The receive event is a descriptor that is read, never
 * set: setting it is ILLOPERATION. Time stamps count from when the system was booted. A second
 * program may open a channel, at the same bit rate only. Error frames have one bit as identifier.
 */
#include "bus.h"

#include <string.h>

#define API __attribute__((visibility("default")))

typedef uint16_t handle_t;
typedef uint32_t status_t;

enum {
    OK = 0x0, XMTFULL = 0x1, OVERRUN = 0x2, BUSLIGHT = 0x4, BUSHEAVY = 0x8, BUSOFF = 0x10,
    QRCVEMPTY = 0x20, QOVERRUN = 0x40, QXMTFULL = 0x80, NODRIVER = 0x200, ILLHW = 0x1400,
    ILLHANDLE = 0x1C00, ILLPARAMTYPE = 0x4000, ILLPARAMVAL = 0x8000, INITIALIZE = 0x4000000,
    ILLOPERATION = 0x8000000
};
enum { STANDARD = 0, RTR = 1, EXTENDED = 2, FD = 4, BRS = 8, ESI = 16, ECHO = 32, ERRFRAME = 64,
       STATUS = 128 };
enum { DEVICE_ID = 0x01, RECEIVE_EVENT = 0x03, API_VERSION = 0x05, BUSOFF_AUTORESET = 0x07,
       LISTEN_ONLY = 0x08, CHANNEL_CONDITION = 0x0D, CHANNEL_FEATURES = 0x16,
       ALLOW_STATUS_FRAMES = 0x1E, ALLOW_RTR_FRAMES = 0x1F, ALLOW_ERROR_FRAMES = 0x20,
       ATTACHED_COUNT = 0x2A, ATTACHED = 0x2B, ALLOW_ECHO_FRAMES = 0x2C };

#define FIRST 0x51 /* PCAN_USBBUS1 */
#define CHANNELS 2

struct message { uint32_t id; uint8_t type, length, data[8]; };
struct message_fd { uint32_t id; uint8_t type, dlc, data[64]; };
struct timestamp { uint32_t millis; uint16_t overflow, micros; };
struct information {
    handle_t handle;
    uint8_t device_type, controller;
    uint32_t features;
    char name[33];
    uint32_t device_id, condition;
};

static struct bus *bus;
static struct bus_handle *opened[CHANNELS];
static int is_fd[CHANNELS], resets_itself[CHANNELS];

static int index_of(handle_t handle) {
    if (bus == NULL) bus = bus_attach(NULL);
    return bus != NULL && handle >= FIRST && handle < FIRST + CHANNELS ? handle - FIRST : -1;
}

/* ------------------------------------------------------------------------------------ opening */

static status_t initialize(handle_t handle, uint32_t mode, int fd) {
    int channel = index_of(handle);
    if (bus == NULL) return NODRIVER;
    if (channel < 0) return ILLHANDLE;
    if (opened[channel] != NULL) return INITIALIZE;
    switch (bus_open(bus, channel, mode, 0, 0, &opened[channel])) {
    case BUS_OK: break;
    case BUS_BUSY: return INITIALIZE; /* another program has it, at another bit rate */
    default: return ILLHW;
    }
    is_fd[channel] = fd;
    resets_itself[channel] = 0;
    return OK;
}

API status_t CAN_Initialize(handle_t handle, uint16_t btr, uint8_t type, uint32_t port, uint16_t irq) {
    (void)type, (void)port, (void)irq;
    return initialize(handle, btr, 0);
}

API status_t CAN_InitializeFD(handle_t handle, const char *bitrate) {
    uint32_t mode = 2166136261u;
    if (bitrate == NULL || strstr(bitrate, "f_clock") == NULL || strstr(bitrate, "nom_brp") == NULL)
        return ILLPARAMVAL;
    for (; *bitrate; bitrate++)
        if (*bitrate != ' ') mode = (mode ^ (uint8_t)*bitrate) * 16777619u;
    return initialize(handle, mode, 1);
}

API status_t CAN_Uninitialize(handle_t handle) {
    int channel = index_of(handle);
    for (int i = 0; i < CHANNELS; i++)
        if (opened[i] != NULL && (handle == 0 || i == channel)) {
            bus_close(opened[i]);
            opened[i] = NULL;
        } else if (i == channel) return INITIALIZE;
    return OK;
}

API status_t CAN_Reset(handle_t handle) {
    int channel = index_of(handle);
    struct bus_frame frame;
    if (channel < 0 || opened[channel] == NULL) return INITIALIZE;
    while (bus_read(opened[channel], &frame) == BUS_OK) continue; /* "A reset of the CAN controller
                                                                     is not performed" */
    return OK;
}

API status_t CAN_GetStatus(handle_t handle) {
    int channel = index_of(handle);
    if (channel < 0 || opened[channel] == NULL) return INITIALIZE;
    switch (bus_state(opened[channel])) {
    case BUS_GONE: return ILLHW;
    case BUS_OFF: return BUSOFF;
    default: return bus_channel(bus, channel)->heavy ? BUSHEAVY : OK;
    }
}

/* ---------------------------------------------------------------------------------- receiving */

static const uint8_t lengths[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64};

static uint8_t dlc_of(uint32_t length) {
    uint8_t dlc = 0;
    while (lengths[dlc] < length) dlc++;
    return dlc;
}

static status_t read_any(int channel, int fd, struct bus_frame *frame) {
    if (channel < 0 || opened[channel] == NULL) return INITIALIZE;
    if (is_fd[channel] != fd) return ILLOPERATION;
    switch (bus_read(opened[channel], frame)) {
    case BUS_OK: break;
    case BUS_EMPTY: return bus_channel(bus, channel)->heavy ? BUSHEAVY : QRCVEMPTY;
    case BUS_OVERRUN: return QOVERRUN;
    default: return ILLHW;
    }
    if (!(frame->flags & FRAME_STATUS)) return OK;
    if (frame->status == BUSOFF && resets_itself[channel]) bus_channel(bus, channel)->off = 0;
    frame->id = 1; /* of "error active", the only one that is not told by the return value */
    frame->length = 4;
    memset(frame->data, 0, sizeof frame->data);
    frame->data[3] = (uint8_t)frame->status;
    return frame->status;
}

static uint8_t type_of(uint32_t flags) {
    if (flags & FRAME_STATUS) return STATUS;
    if (flags & FRAME_ERROR) return ERRFRAME;
    return (uint8_t)((flags & FRAME_EXTENDED ? EXTENDED : STANDARD) | (flags & FRAME_REMOTE ? RTR : 0) |
                     (flags & FRAME_FD ? FD : 0) | (flags & FRAME_BRS ? BRS : 0) |
                     (flags & FRAME_ESI ? ESI : 0) | (flags & FRAME_OWN ? ECHO : 0));
}

API status_t CAN_Read(handle_t handle, struct message *message, struct timestamp *stamp) {
    struct bus_frame frame;
    status_t status = read_any(index_of(handle), 0, &frame);
    if (status != OK) return status;
    message->id = frame.id;
    message->type = type_of(frame.flags);
    message->length = (uint8_t)frame.length;
    memcpy(message->data, frame.data, sizeof message->data);
    if (stamp != NULL) {
        uint64_t millis = (uint64_t)frame.time_us / 1000;
        stamp->millis = (uint32_t)millis;
        stamp->overflow = (uint16_t)(millis >> 32);
        stamp->micros = (uint16_t)(frame.time_us % 1000);
    }
    return OK;
}

API status_t CAN_ReadFD(handle_t handle, struct message_fd *message, uint64_t *stamp) {
    struct bus_frame frame;
    status_t status = read_any(index_of(handle), 1, &frame);
    if (status != OK) return status;
    message->id = frame.id;
    message->type = type_of(frame.flags);
    message->dlc = dlc_of(frame.length);
    memcpy(message->data, frame.data, sizeof message->data);
    if (stamp != NULL) *stamp = (uint64_t)frame.time_us;
    return OK;
}

/* -------------------------------------------------------------------------------- transmitting */

static status_t write_any(int channel, int fd, uint32_t id, uint8_t type, uint8_t length,
                          const uint8_t *data) {
    struct bus_frame frame = {.id = id, .length = length};
    if (channel < 0 || opened[channel] == NULL) return INITIALIZE;
    if (is_fd[channel] != fd || (type & FD && !fd)) return ILLOPERATION;
    if (bus_state(opened[channel]) == BUS_OFF) return BUSOFF; /* ENETDOWN */
    frame.flags = (type & EXTENDED ? FRAME_EXTENDED : 0u) | (type & RTR ? FRAME_REMOTE : 0u) |
                  (type & FD ? FRAME_FD : 0u) | (type & BRS ? FRAME_BRS : 0u);
    memcpy(frame.data, data, length);
    switch (bus_write(opened[channel], &frame)) {
    case BUS_OK: return OK;
    case BUS_FULL: return QXMTFULL;
    default: return ILLHW;
    }
}

API status_t CAN_Write(handle_t handle, const struct message *message) {
    if (message->length > 8) return ILLPARAMVAL;
    return write_any(index_of(handle), 0, message->id, message->type, message->length, message->data);
}

API status_t CAN_WriteFD(handle_t handle, const struct message_fd *message) {
    return write_any(index_of(handle), 1, message->id, message->type, lengths[message->dlc & 15],
                     message->data);
}

/* ----------------------------------------------------------------------------------- parameters */

static void describe(int channel, struct information *found) {
    memset(found, 0, sizeof *found);
    found->handle = (handle_t)(FIRST + channel);
    found->device_type = 5; /* PCAN_USB */
    found->controller = (uint8_t)channel;
    found->features = 1; /* FEATURE_FD_CAPABLE */
    strcpy(found->name, "PCAN-USB Pro FD");
    found->device_id = 1;
    found->condition = bus_is_open(bus, channel) ? 2 : 1;
}

static int attached(struct information *found) {
    int count = 0;
    for (int i = 0; i < CHANNELS; i++) {
        if (bus_channel(bus, i)->absent) continue;
        if (found != NULL) describe(i, &found[count]);
        count++;
    }
    return count;
}

API status_t CAN_GetValue(handle_t handle, uint8_t parameter, void *buffer, uint32_t size) {
    int channel = index_of(handle);
    int32_t value = 0;
    if (buffer == NULL || size < sizeof value) return ILLPARAMVAL;
    memset(buffer, 0, size);
    if (bus == NULL) return NODRIVER;
    switch (parameter) {
    case API_VERSION:
        if (size < 8) return ILLPARAMVAL;
        strcpy(buffer, "4.7.0.3");
        return OK;
    case ATTACHED_COUNT: value = attached(NULL); break;
    case ATTACHED:
        if (size < (uint32_t)attached(NULL) * sizeof(struct information)) return ILLPARAMVAL;
        attached(buffer);
        return OK;
    case DEVICE_ID:
        if (channel < 0 || bus_channel(bus, channel)->absent) return ILLHW;
        value = 1;
        break;
    case CHANNEL_CONDITION:
        if (channel >= 0 && !bus_channel(bus, channel)->absent)
            value = bus_is_open(bus, channel) ? 2 : 1;
        break;
    case CHANNEL_FEATURES:
        if (channel < 0) return ILLHW;
        value = 1;
        break;
    case RECEIVE_EVENT:
        if (channel < 0 || opened[channel] == NULL) return INITIALIZE;
        value = bus_event(opened[channel]);
        break;
    default: return ILLPARAMTYPE;
    }
    memcpy(buffer, &value, sizeof value);
    return OK;
}

API status_t CAN_SetValue(handle_t handle, uint8_t parameter, const void *buffer, uint32_t size) {
    int channel = index_of(handle);
    int on;
    if (buffer == NULL || size == 0) return ILLPARAMVAL;
    if (channel < 0) return bus == NULL ? NODRIVER : ILLHANDLE;
    on = *(const uint8_t *)buffer;
    if (parameter == LISTEN_ONLY) return on > 1 ? ILLPARAMVAL : OK; /* also before it is opened */
    if (opened[channel] == NULL) return INITIALIZE;
    switch (parameter) {
    case RECEIVE_EVENT: return ILLOPERATION;
    case BUSOFF_AUTORESET: resets_itself[channel] = on; return OK;
    case ALLOW_ECHO_FRAMES: bus_set(opened[channel], 1, 1, on); return OK;
    case ALLOW_STATUS_FRAMES:
    case ALLOW_RTR_FRAMES:
    case ALLOW_ERROR_FRAMES: return OK;
    default: return ILLPARAMTYPE;
    }
}

API status_t CAN_FilterMessages(handle_t handle, uint32_t from, uint32_t to, uint8_t mode) {
    (void)from, (void)to, (void)mode;
    return index_of(handle) < 0 ? ILLHANDLE : OK; /* python-can never calls it */
}

/* --------------------------------------------------------------------------------------- texts */

static const struct { status_t code; const char *text; } texts[] = {
    {OK, "No Error"},
    {XMTFULL, "The transmit buffer in CAN controller is full"},
    {OVERRUN, "The CAN controller was read too late"},
    {BUSLIGHT, "Bus error: an error counter reached the 'light' limit"},
    {BUSHEAVY, "Bus error: an error counter reached the 'heavy'/'warning' limit"},
    {BUSOFF, "Bus error: the CAN controller is in bus-off state"},
    {QRCVEMPTY, "The receive queue is empty"},
    {QOVERRUN, "The receive queue was read too late"},
    {QXMTFULL, "The transmit queue is full"},
    {NODRIVER, "The driver is not loaded"},
    {ILLHW, "The value of a PCAN-Hardware handle is invalid"},
    {ILLHANDLE, "The value of a handle (PCAN-Channel, PCAN-Hardware, PCAN-Net, PCAN-Client) is invalid"},
    {ILLPARAMTYPE, "An invalid parameter was specified"},
    {ILLPARAMVAL, "A parameter contains an invalid value"},
    {INITIALIZE, "A PCAN Channel has not been initialized yet or the initialization process has failed"},
    {ILLOPERATION, "An operation is not allowed due to the current configuration"},
};

API status_t CAN_GetErrorText(status_t error, uint16_t language, char *buffer) {
    if (language != 0 && language != 9) return ILLPARAMVAL; /* English alone is here */
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].code == error) {
            strcpy(buffer, texts[i].text);
            return OK;
        }
    return ILLPARAMVAL;
}
