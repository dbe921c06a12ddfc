/* A CAN bus between processes, for the doubles of vendors' libraries beside this file.
 *
 * One file, mapped by every process, holds the adapters, the open handles and what each of them
 * has received; its lock survives a process that is killed. Each handle has a FIFO that is
 * readable while something waits for it: the receive event.
 */
#ifndef VENDOR_BUS_H
#define VENDOR_BUS_H

#include <pthread.h>
#include <stdint.h>

#define BUS_VARIABLE "CANBROKER_VENDOR_BUS" /* names the directory of the bus */
#define BUS_CHANNELS 8                      /* channels of adapters */
#define BUS_NODE 7                          /* the channel of the tests' own node */
#define BUS_HANDLES 16
#define BUS_RING 32768  /* PCAN-Basic: "The receive queue can contain up to 32767 messages" */
#define BUS_TRANSMIT 500 /* messages that wait for the bus; pcan's driver for Linux has as many */

enum { FRAME_EXTENDED = 1, FRAME_REMOTE = 2, FRAME_FD = 4, FRAME_BRS = 8, FRAME_ESI = 16,
       FRAME_ERROR = 32, FRAME_STATUS = 64, FRAME_OWN = 128 };

struct bus_frame {
    int64_t time_us;  /* since boot */
    uint32_t id;
    uint32_t flags;   /* FRAME_... */
    uint32_t status;  /* of FRAME_STATUS: the vendor's code */
    uint32_t length;
    uint8_t data[64];
};

/* One channel of an adapter. Tests write the first half; the libraries count in the second. */
struct bus_channel {
    int32_t absent;      /* unplugged */
    int32_t frame_us;    /* how long a frame takes */
    int32_t off;         /* the controller is bus-off */
    int32_t heavy;       /* PCAN: every read of an empty queue reports BUSHEAVY */
    int32_t silent;      /* nobody acknowledges */
    int32_t queue;       /* frames that a handle holds unread; 0: as many as the ring */
    uint32_t sent;       /* frames that were on the bus */
    uint32_t lost;       /* frames that met a full receive queue */
    uint32_t syncs;      /* calls of canWriteSync */
    uint32_t reads;      /* calls that read */
};

struct bus_handle;
struct bus;

enum bus_result { BUS_OK, BUS_EMPTY, BUS_FULL, BUS_GONE, BUS_OVERRUN, BUS_BUSY, BUS_OFF };

struct bus *bus_attach(const char *directory); /* NULL: BUS_VARIABLE */
void bus_detach(struct bus *bus);
struct bus_channel *bus_channel(struct bus *bus, int channel);
int64_t bus_now_us(void);

/* Handles. `mode`: the bit rate, which all handles of a channel have in common. */
enum bus_result bus_open(struct bus *bus, int channel, uint32_t mode, int exclusive, int override,
                         struct bus_handle **opened);
void bus_close(struct bus_handle *handle);
int bus_event(struct bus_handle *handle);
enum bus_result bus_read(struct bus_handle *handle, struct bus_frame *frame);
enum bus_result bus_wait(struct bus_handle *handle, long timeout_ms);
enum bus_result bus_write(struct bus_handle *handle, const struct bus_frame *frame);
enum bus_result bus_flush(struct bus_handle *handle, long timeout_ms);
enum bus_result bus_state(struct bus_handle *handle);
void bus_set(struct bus_handle *handle, int on_bus, int hears_own_channel, int hears_itself);
void bus_filter(struct bus_handle *handle, int extended, uint32_t code, uint32_t mask);

/* For tests. */
void bus_send_now(struct bus_handle *handle, const struct bus_frame *frame);
void bus_generate(struct bus_handle *handle, unsigned rate, unsigned count);
void bus_unplug(struct bus *bus, int channel, int absent);
void bus_report(struct bus *bus, int channel, uint32_t status);
int bus_is_open(struct bus *bus, int channel);

#endif
