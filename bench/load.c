/* A load generator that checks what it gets: every answer whole, every stream ended by its own end mark.
 *
 *     load --port P --connections N (--seconds S | --each K) [--ramp-ms M] [--lines L] [--path /api/chat]
 *          [--key KEY] --body FILE
 *
 * It opens N connections to 127.0.0.1:P, prints "ready", waits for a line on stdin, then sends the same POST
 * on each, one at a time, for S seconds or K times; with --ramp-ms the first ones are spread over M
 * milliseconds. An answer must say "done":true; with --lines it must have exactly L lines, of which the last
 * and no other says so. One line of JSON at the end tells what happened; then a line or the end of stdin lets
 * it go. A connection that fails is closed, counted and not opened again.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_HEAD_BYTES = 4096,
    MAX_LINE_BYTES = 1024,
    READ_BYTES = 256 << 10,
    EVENTS_AT_ONCE = 512,
    MAX_LATENCIES = 1 << 21,
    SILENCE_MS = 15000, /* without any event for so long, what is still open counts as broken */
};

enum state { IDLE, SENDING, HEAD, COUNTED, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, WHOLE, DONE };

struct connection {
    int fd;
    enum state state;
    int asked;            /* requests begun */
    size_t sent;          /* bytes of the request */
    long long started_ns; /* when the request was begun */
    long long remaining;  /* bytes of the body or the chunk */
    int status, lines, done_lines, is_last_line_done;
    size_t head_length, line_length;
    char head[MAX_HEAD_BYTES], line[MAX_LINE_BYTES];
};

static struct {
    int port, connections, each, ramp_ms, lines;
    double seconds;
    const char *path, *key, *body;
} options = {.path = "/api/chat", .key = ""};

static struct {
    long long requests, failed, broken, lines, reads;
    int concurrent, peak;
    char first_failure[160];
} totals;

static struct connection *connections;
static char *request;
static size_t request_length;
static long long *latencies, latency_count, begin_ns, end_ns;
static int epoll_fd, unfinished; /* connections that have not done their part yet */

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void explain(const char *what, const struct connection *c) {
    if (totals.first_failure[0]) return;
    snprintf(totals.first_failure, sizeof totals.first_failure, "%s (status %d, %d lines): %.60s", what,
             c->status, c->lines, c->state == HEAD ? "" : c->head);
    for (char *p = totals.first_failure; *p; p++)
        if (*p < ' ' || *p == '"' || *p == '\\' || *p == 127) *p = ' ';
}

static void lost(struct connection *c, const char *what) {
    explain(what, c);
    totals.broken++;
    if (c->state != IDLE) totals.concurrent--;
    c->state = DONE;
    unfinished--;
    close(c->fd);
}

static void watch(struct connection *c, int operation, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, operation, c->fd, &event);
}

static void send_request(struct connection *c) {
    ssize_t sent = send(c->fd, request + c->sent, request_length - c->sent, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return lost(c, "the connection was lost while sending");
    if (sent > 0) c->sent += sent;
    if (c->sent < request_length) {
        if (c->state != SENDING) watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
        c->state = SENDING;
        return;
    }
    if (c->state == SENDING) watch(c, EPOLL_CTL_MOD, EPOLLIN);
    c->state = HEAD;
}

static void begin(struct connection *c) {
    c->started_ns = now_ns();
    c->asked++;
    c->sent = c->head_length = c->line_length = 0;
    c->status = c->lines = c->done_lines = c->is_last_line_done = 0;
    c->state = HEAD;
    if (++totals.concurrent > totals.peak) totals.peak = totals.concurrent;
    send_request(c);
}

/* Begins the next request unless the connection has done its part; it stays open, so that closing costs the
 * proxy nothing while it is measured. */
static void next(struct connection *c) {
    int has_more = options.each ? c->asked < options.each : now_ns() < end_ns;
    if (has_more) return begin(c);
    c->state = DONE;
    unfinished--;
    watch(c, EPOLL_CTL_DEL, 0);
}

static int says_done(const struct connection *c) {
    return memmem(c->line, c->line_length, "\"done\":true", 11) != NULL;
}

static void end_line(struct connection *c) {
    c->is_last_line_done = says_done(c);
    c->done_lines += c->is_last_line_done;
    c->lines++;
    c->line_length = 0;
}

static void read_lines(struct connection *c, const char *data, size_t length) {
    while (length) {
        const char *newline = memchr(data, '\n', length);
        size_t part = newline ? (size_t)(newline - data) : length;
        size_t room = MAX_LINE_BYTES - c->line_length, kept = part < room ? part : room;
        memcpy(c->line + c->line_length, data, kept);
        c->line_length += kept;
        if (newline) end_line(c);
        part += newline != NULL;
        data += part;
        length -= part;
    }
}

static int is_whole(const struct connection *c) {
    if (!options.lines) return says_done(c);
    return c->lines == options.lines && c->done_lines == 1 && c->is_last_line_done && !c->line_length;
}

static void complete(struct connection *c) {
    c->state = IDLE;
    totals.concurrent--;
    totals.lines += c->lines;
    if (latency_count < MAX_LATENCIES) latencies[latency_count++] = now_ns() - c->started_ns;
    if (c->status != 200) {
        explain("refused", c);
        totals.failed++;
    } else if (!is_whole(c)) {
        explain("the answer ended, but is not whole", c);
        totals.broken++;
    } else {
        totals.requests++;
    }
    next(c);
}

/* Reads the head's fields once it is there; says whether the body's length is known. */
static int read_head(struct connection *c) {
    c->head[c->head_length] = 0;
    c->status = atoi(c->head + 9);
    const char *length = strcasestr(c->head, "\ncontent-length:");
    if (strcasestr(c->head, "\ntransfer-encoding: chunked")) {
        c->state = CHUNK_SIZE;
        c->remaining = 0;
        return 1;
    }
    if (!length) return 0;
    c->remaining = atoll(length + 16);
    c->state = c->remaining ? COUNTED : WHOLE;
    return 1;
}

/* Takes bytes of the head; returns how many, or -1 when there is no making sense of them. */
static ssize_t take_head(struct connection *c, const char *data, size_t length) {
    size_t before = c->head_length, room = MAX_HEAD_BYTES - 1 - before, taken = length < room ? length : room;
    memcpy(c->head + before, data, taken);
    c->head_length += taken;
    size_t from = before > 3 ? before - 3 : 0;
    char *end = memmem(c->head + from, c->head_length - from, "\r\n\r\n", 4);
    if (!end) return c->head_length == MAX_HEAD_BYTES - 1 ? -1 : (ssize_t)taken;
    c->head_length = end + 4 - c->head;
    if (!read_head(c)) return -1;
    return c->head_length - before;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Takes one byte of a chunk's frame (size line, line end, trailer); -1 when it does not belong there. */
static ssize_t take_frame(struct connection *c, char byte) {
    if (byte == '\r') return 1;
    if (c->state == CHUNK_END) {
        c->state = CHUNK_SIZE;
        c->remaining = 0;
        return byte == '\n' ? 1 : -1;
    }
    if (c->state == TRAILER) {
        c->state = WHOLE;
        return byte == '\n' ? 1 : -1;
    }
    if (byte == '\n') {
        c->state = c->remaining ? CHUNK_DATA : TRAILER;
        return 1;
    }
    if (hex_digit(byte) < 0) return -1;
    c->remaining = c->remaining * 16 + hex_digit(byte);
    return 1;
}

static ssize_t take_body(struct connection *c, const char *data, size_t length) {
    size_t taken = length < (size_t)c->remaining ? length : (size_t)c->remaining;
    read_lines(c, data, taken);
    c->remaining -= taken;
    if (!c->remaining) c->state = c->state == COUNTED ? WHOLE : CHUNK_END;
    return taken;
}

static ssize_t take(struct connection *c, const char *data, size_t length) {
    switch (c->state) {
    case HEAD:
        return take_head(c, data, length);
    case COUNTED:
    case CHUNK_DATA:
        return take_body(c, data, length);
    case CHUNK_SIZE:
    case CHUNK_END:
    case TRAILER:
        return take_frame(c, *data);
    default: /* bytes that nobody asked for */
        return -1;
    }
}

static void readable(struct connection *c) {
    static char buffer[READ_BYTES];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0), at = 0;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return lost(c, "the connection was lost");
    totals.reads++;
    while (at < got) {
        ssize_t taken = take(c, buffer + at, got - at);
        if (taken < 0) return lost(c, c->state == SENDING ? "answered early" : "not the HTTP/1.1 expected");
        at += taken;
    }
    if (c->state == WHOLE) complete(c);
}

static void connect_all(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(options.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    for (int i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) {
            perror("load: connect");
            exit(1);
        }
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
        unfinished++;
    }
}

/* Begins the first requests that are due by now; returns how many have been begun so far. */
static int begin_due(int begun) {
    long long elapsed_ns = now_ns() - begin_ns, ramp_ns = options.ramp_ms * 1000000LL;
    while (begun < options.connections && elapsed_ns * options.connections >= ramp_ns * begun) {
        if (connections[begun].state == IDLE) begin(&connections[begun]);
        begun++;
    }
    return begun;
}

static void run(void) {
    struct epoll_event events[EVENTS_AT_ONCE];
    int begun = 0;
    begin_ns = now_ns();
    end_ns = begin_ns + (long long)(options.seconds * 1e9);
    while (unfinished) {
        if (begun < options.connections) begun = begin_due(begun);
        int wait_ms = begun < options.connections ? 1 : SILENCE_MS;
        int ready = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, wait_ms);
        if (!ready && wait_ms == SILENCE_MS) break;
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->state == SENDING && events[i].events & EPOLLOUT) send_request(c);
            if (c->state != DONE && events[i].events & ~EPOLLOUT) readable(c);
        }
    }
    for (int i = 0; i < options.connections; i++)
        if (connections[i].state != DONE) lost(&connections[i], "no byte for 15 seconds");
}

static void prepare_request(void) {
    FILE *file = fopen(options.body, "rb");
    static char body[1 << 20];
    size_t length = file ? fread(body, 1, sizeof body, file) : 0;
    if (!length) {
        fprintf(stderr, "load: %s cannot be read or is empty\n", options.body);
        exit(1);
    }
    fclose(file);
    int head = asprintf(&request,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                        "Authorization: Bearer %s\r\nContent-Length: %zu\r\n\r\n",
                        options.path, options.port, options.key, length);
    request = realloc(request, head + length);
    if (!request) exit(1);
    memcpy(request + head, body, length);
    request_length = head + length;
}

static int read_options(int count, char **arguments) {
    static const struct option known[] = {
        {"port", 1, 0, 'p'}, {"connections", 1, 0, 'c'}, {"seconds", 1, 0, 's'}, {"each", 1, 0, 'e'},
        {"ramp-ms", 1, 0, 'r'}, {"lines", 1, 0, 'l'}, {"path", 1, 0, 'u'}, {"key", 1, 0, 'k'},
        {"body", 1, 0, 'b'}, {0, 0, 0, 0},
    };
    int option;
    while ((option = getopt_long(count, arguments, "", known, NULL)) != -1) {
        switch (option) {
        case 'p': options.port = atoi(optarg); break;
        case 'c': options.connections = atoi(optarg); break;
        case 's': options.seconds = atof(optarg); break;
        case 'e': options.each = atoi(optarg); break;
        case 'r': options.ramp_ms = atoi(optarg); break;
        case 'l': options.lines = atoi(optarg); break;
        case 'u': options.path = optarg; break;
        case 'k': options.key = optarg; break;
        case 'b': options.body = optarg; break;
        default: return 0;
        }
    }
    return options.port && options.connections && (options.seconds > 0 || options.each) && options.body;
}

static int by_value(const void *a, const void *b) {
    long long left = *(const long long *)a, right = *(const long long *)b;
    return (left > right) - (left < right);
}

static double percentile_us(double share) {
    return latency_count ? latencies[(long long)(share * (latency_count - 1))] / 1e3 : 0;
}

static void report(void) {
    double seconds = (now_ns() - begin_ns) / 1e9;
    qsort(latencies, latency_count, sizeof *latencies, by_value);
    printf("{\"requests\":%lld,\"failed\":%lld,\"broken\":%lld,\"lines\":%lld,\"reads\":%lld,\"peak\":%d,"
           "\"seconds\":%.6f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"first_failure\":\"%s\"}\n",
           totals.requests, totals.failed, totals.broken, totals.lines, totals.reads, totals.peak, seconds,
           percentile_us(0.50), percentile_us(0.99), totals.first_failure);
    fflush(stdout);
}

int main(int count, char **arguments) {
    if (!read_options(count, arguments)) {
        fprintf(stderr, "usage: load --port P --connections N (--seconds S | --each K) [--ramp-ms M] "
                        "[--lines L] [--path PATH] [--key KEY] --body FILE\n");
        return 2;
    }
    connections = calloc(options.connections, sizeof *connections);
    latencies = malloc(MAX_LATENCIES * sizeof *latencies);
    if (!connections || !latencies) return 1;
    epoll_fd = epoll_create1(0);
    prepare_request();
    connect_all();
    printf("ready\n");
    fflush(stdout);
    if (getchar() == EOF) return 1;
    run();
    report();
    getchar();
    return 0;
}
