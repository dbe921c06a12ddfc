/* A subscriber in C that needs only libzmq and docs/protocol.md.
 *
 *     cc -o subscriber subscriber.c -lzmq
 *     ./subscriber ipc:///run/user/1000/canbroker/virtual.x.rx virtual.x '?451:7ff' [COUNT]
 *
 * On Windows and macOS there is a file at that path, which says where the channel listens.
 *
 * The third argument is '' for all frames, or a question mark and filters. Prints each frame like
 * candump, and how many frames were lost; ends after COUNT frames. It decodes the part of
 * MessagePack that the protocol uses, and skips elements that it does not know.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <process.h>
#define getpid _getpid
#else
#include <unistd.h>
#endif
#include <zmq.h>

enum { EXTENDED = 1, REMOTE = 2, FD = 8, BITRATE_SWITCH = 16, ERROR_STATE = 32 };
enum { FRAMES, HEARTBEAT, END, ERROR, EVENT };
enum { SILENCE_MS = 1500 };

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* ------------------------------------------------------------------------------ MessagePack */

struct reader {
    const uint8_t *at, *end;
};

enum type { INTEGER, BYTES, TEXT, ARRAY, MAP, OTHER };

struct item {
    enum type type;
    uint64_t number;     /* the value of an integer, the length of anything else */
    const uint8_t *data; /* the content of bytes and text */
};

static const uint8_t *take(struct reader *reader, size_t size)
{
    if ((size_t)(reader->end - reader->at) < size)
        fail("a message is truncated");
    reader->at += size;
    return reader->at - size;
}

static uint64_t number(struct reader *reader, size_t size)
{
    const uint8_t *bytes = take(reader, size);
    uint64_t value = 0;
    while (size--)
        value = value << 8 | *bytes++;
    return value;
}

static struct item sized(struct reader *reader, enum type type, uint64_t length)
{
    struct item item = {type, length, NULL};
    if (type == BYTES || type == TEXT || type == OTHER)
        item.data = take(reader, length);
    return item;
}

/* The next item. Of an array or a map it is only the head; the items follow. */
static struct item next(struct reader *reader)
{
    uint8_t tag = *take(reader, 1);
    if (tag <= 0x7f)
        return (struct item){INTEGER, tag, NULL};
    if (tag <= 0x8f)
        return sized(reader, MAP, tag & 0x0f);
    if (tag <= 0x9f)
        return sized(reader, ARRAY, tag & 0x0f);
    if (tag <= 0xbf)
        return sized(reader, TEXT, tag & 0x1f);
    if (tag >= 0xcc && tag <= 0xcf)
        return (struct item){INTEGER, number(reader, (size_t)1 << (tag - 0xcc)), NULL};
    if (tag >= 0xc4 && tag <= 0xc6)
        return sized(reader, BYTES, number(reader, (size_t)1 << (tag - 0xc4)));
    if (tag >= 0xd9 && tag <= 0xdb)
        return sized(reader, TEXT, number(reader, (size_t)1 << (tag - 0xd9)));
    if (tag == 0xdc || tag == 0xdd)
        return sized(reader, ARRAY, number(reader, tag == 0xdc ? 2 : 4));
    if (tag == 0xde || tag == 0xdf)
        return sized(reader, MAP, number(reader, tag == 0xde ? 2 : 4));
    if (tag == 0xca || tag == 0xcb) /* floats */
        return sized(reader, OTHER, tag == 0xca ? 4 : 8);
    if (tag >= 0xd0 && tag <= 0xd3) /* negative numbers */
        return sized(reader, OTHER, (size_t)1 << (tag - 0xd0));
    if (tag == 0xc0 || tag == 0xc2 || tag == 0xc3 || tag >= 0xe0) /* nil, booleans, -32 to -1 */
        return sized(reader, OTHER, 0);
    fail("a message has an item of type 0x%02x", tag);
    return sized(reader, OTHER, 0);
}

static struct item expect(struct reader *reader, enum type type)
{
    struct item item = next(reader);
    if (item.type != type)
        fail("a message has an item of an unexpected type");
    return item;
}

static void skip(struct reader *reader, uint64_t items)
{
    for (; items; items--) {
        struct item item = next(reader);
        if (item.type == ARRAY)
            items += item.number;
        else if (item.type == MAP)
            items += 2 * item.number;
    }
}

/* ---------------------------------------------------------------------------------- frames */

static void print_frame(struct reader *reader)
{
    uint64_t elements = expect(reader, ARRAY).number;
    if (elements < 4)
        fail("a frame is too short");
    uint64_t ns = expect(reader, INTEGER).number;
    uint64_t identifier = expect(reader, INTEGER).number;
    uint64_t flags = expect(reader, INTEGER).number;
    printf("(%" PRIu64 ".%06" PRIu64 ") ", ns / 1000000000, ns / 1000 % 1000000);
    printf(flags & EXTENDED ? "%08" PRIX64 : "%03" PRIX64, identifier);
    if (flags & REMOTE) {
        printf("#R%" PRIu64, expect(reader, INTEGER).number);
    } else {
        struct item data = expect(reader, BYTES);
        putchar('#');
        if (flags & FD)
            printf("#%X", !!(flags & BITRATE_SWITCH) + 2 * !!(flags & ERROR_STATE));
        for (uint64_t i = 0; i < data.number; i++)
            printf("%02X", data.data[i]);
    }
    putchar('\n');
    skip(reader, elements - 4);
}

struct account {
    uint64_t epoch, expected, received, lost;
};

static void handle(struct account *account, struct reader reader)
{
    if (expect(&reader, ARRAY).number < 6)
        fail("a body is too short");
    uint64_t version = expect(&reader, INTEGER).number;
    if (version != 1)
        fail("protocol version %" PRIu64, version);
    uint64_t kind = expect(&reader, INTEGER).number;
    uint64_t epoch = expect(&reader, INTEGER).number;
    uint64_t first = expect(&reader, INTEGER).number;
    expect(&reader, INTEGER); /* dropped_upstream */
    if (kind == END || kind == ERROR) {
        struct item reason = expect(&reader, TEXT);
        fail("%.*s", (int)reason.number, (const char *)reason.data);
    }
    if (kind == EVENT) {
        fprintf(stderr, "ready\n");
        return;
    }
    if (account->epoch && (epoch != account->epoch || first < account->expected))
        fprintf(stderr, "frames were missed\n");
    else if (account->epoch)
        account->lost += first - account->expected;
    uint64_t count = expect(&reader, ARRAY).number;
    for (uint64_t i = 0; i < count; i++)
        print_frame(&reader);
    fflush(stdout);
    account->epoch = epoch;
    account->expected = first + count;
    account->received += count;
}

/* -------------------------------------------------------------------------------- messages */

static void subscribe(void *socket, const char *channel, const char *kind, const char *filters)
{
    char topic[4097];
    int length = snprintf(topic, sizeof topic, "%s/%s%s;", channel, kind, filters);
    if (length >= (int)sizeof topic)
        fail("the topic is too long");
    if (zmq_setsockopt(socket, ZMQ_SUBSCRIBE, topic, (size_t)length))
        fail("%s", zmq_strerror(zmq_errno()));
}

static void receive(void *socket, zmq_msg_t *part)
{
    zmq_msg_init(part);
    if (zmq_msg_recv(part, socket, 0) < 0)
        fail(zmq_errno() == EAGAIN ? "the channel is silent" : zmq_strerror(zmq_errno()));
}

/* -------------------------------------------------------------------------------- connecting */

/* Reads a text of a file that contains one JSON object of texts and numbers; false: no file. */
static bool read_text(const char *path, const char *name, char *text, size_t size)
{
    char content[4096], quoted[64];
    FILE *file = fopen(path, "rb");
    if (!file)
        return false;
    content[fread(content, 1, sizeof content - 1, file)] = '\0';
    fclose(file);
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    const char *begin = strstr(content, quoted);
    begin = begin ? strchr(begin + strlen(quoted), '"') : NULL;
    const char *end = begin ? strchr(begin + 1, '"') : NULL;
    if (!end || (size_t)(end - begin) > size)
        fail("%s does not contain a text %s", path, quoted);
    memcpy(text, begin + 1, (size_t)(end - begin) - 1);
    text[end - begin - 1] = '\0';
    return true;
}

/* Connects to a Unix socket, or to the port that a file in its place names. */
static void connect_to(void *socket, const char *endpoint)
{
    const char *path = strncmp(endpoint, "ipc://", 6) ? endpoint : endpoint + 6;
    const char *name = strrchr(path, '/');
    char port[64], key_path[4096], public[41], secret[41];
    if (name && read_text(path, "endpoint", port, sizeof port)) { /* fopen() opens no socket */
        snprintf(key_path, sizeof key_path, "%.*s/fabric.key", (int)(name - path), path);
        if (!read_text(key_path, "public", public, sizeof public) ||
            !read_text(key_path, "secret", secret, sizeof secret))
            fail("there is no key at %s", key_path);
        if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, public, sizeof public) ||
            zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, public, sizeof public) ||
            zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secret, sizeof secret))
            fail("%s: %s", key_path, zmq_strerror(zmq_errno()));
        endpoint = port;
    }
    if (zmq_connect(socket, endpoint))
        fail("cannot connect to %s: %s", endpoint, zmq_strerror(zmq_errno()));
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc > 5) {
        fprintf(stderr, "usage: %s ENDPOINT CHANNEL FILTERS [COUNT]\n", argv[0]);
        return 2;
    }
    uint64_t wanted = argc == 5 ? strtoull(argv[4], NULL, 10) : UINT64_MAX;
    void *context = zmq_ctx_new();
    void *socket = zmq_socket(context, ZMQ_SUB);
    int patience = SILENCE_MS;
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &patience, sizeof patience);
    connect_to(socket, argv[1]);
    char me[32];
    snprintf(me, sizeof me, "@c-%ld", (long)getpid());
    subscribe(socket, argv[2], "rx", argv[3]);
    subscribe(socket, argv[2], me, argv[3]); /* second, so that its answer confirms both */

    struct account account = {0};
    while (account.received < wanted) {
        zmq_msg_t topic, body;
        receive(socket, &topic);
        receive(socket, &body);
        const uint8_t *bytes = zmq_msg_data(&body);
        handle(&account, (struct reader){bytes, bytes + zmq_msg_size(&body)});
        zmq_msg_close(&topic);
        zmq_msg_close(&body);
    }
    fprintf(stderr, "received %" PRIu64 ", lost %" PRIu64 "\n", account.received, account.lost);
    zmq_close(socket);
    zmq_ctx_term(context);
    return 0;
}
