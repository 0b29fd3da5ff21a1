/* A fake node that joins a hub and answers by itself, fast enough never to be the bottleneck of a benchmark.
 *
 *     node PORT KEY CHUNKS SPACING_US        (the hub's port on 127.0.0.1, a worker key)
 *
 * It speaks docs/link.md with one engine, an Ollama with the model m:latest and 4,000 slots. A request is answered as
 * bench/engine.c answers /api/chat: whole, or as a stream of CHUNKS chunks, one every SPACING_US microseconds.
 * It masks with zeros, which RFC 6455 allows and costs the hub what any mask costs.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20, EVENTS_AT_ONCE = 512, MAX_LINKS = 4096 };

struct link {
    int fd, is_control, chunks_left;
    char *buffer;
    size_t length;
    char exchange[80];
    char *request;
    size_t request_bytes;
    long long due_us;
    struct link *earlier, *later;
};

static struct link *first_due, *last_due;
static int epoll_fd, port, links, wanted, chunks_per_stream;
static long long spacing_us;
static char *key, session[160];
static struct link *control;

#define LINE(text) "{\"model\":\"m:latest\",\"created_at\":\"2025-01-01T00:00:00.000000Z\",\"message\":{\"role\":\"assistant\",\"content\":\"" text "\"},"
#define END                                                                                                  \
    "\"done\":true,\"done_reason\":\"stop\",\"total_duration\":123456789,\"load_duration\":1234567,"         \
    "\"prompt_eval_count\":10,\"prompt_eval_duration\":2345678,\"eval_count\":12,\"eval_duration\":3456789}"
#define MODEL "{\"models\":[{\"name\":\"m:latest\",\"model\":\"m:latest\",\"size\":1000000000,\"digest\":\"00\"}]}"

static char whole[2048], opening[2048], chunk[1024], last[1024];
static const char hello[] =
    "{\"type\":\"hello\",\"instance\":\"0123456789abcdef\",\"agent\":\"bench\",\"engines\":[{\"id\":\"e\","
    "\"kind\":\"ollama\",\"version\":\"0.33.0\",\"slots\":4000,\"tags\":" MODEL ",\"ps\":" MODEL "}]}";

static long long now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static void prepare_answers(void) {
    const char *body = LINE("Hello there, this is a response of a few tokens.") END;
    const char *piece = LINE(" token") "\"done\":false}\n", *end = LINE("") END "\n";
    sprintf(whole, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
    sprintf(chunk, "%zx\r\n%s\r\n", strlen(piece), piece);
    sprintf(opening, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n%s", chunk);
    sprintf(last, "%zx\r\n%s\r\n0\r\n\r\n", strlen(end), end);
}

static size_t put(char *out, int first, const char *payload, size_t length) {
    size_t at = 0;
    out[at++] = (char)first;
    if (length < 126) out[at++] = (char)(0x80 | length);
    else {
        out[at++] = (char)(0x80 | 126);
        out[at++] = (char)(length >> 8);
        out[at++] = (char)length;
    }
    memset(out + at, 0, 4);
    memcpy(out + at + 4, payload, length);
    return at + 4 + length;
}

static size_t put_mark(char *out, const char *type, const char *exchange) {
    const char *more = *type == 'e' ? ",\"error\":null" : "";
    char text[200];
    return put(out, 0x81, text, (size_t)sprintf(text, "{\"type\":\"%s\",\"id\":\"%s\"%s}", type, exchange, more));
}

static void flush(struct link *l, const char *data, size_t length) {
    if (send(l->fd, data, length, MSG_NOSIGNAL) != (ssize_t)length) {
        perror("node: send");
        exit(1);
    }
}

static void enqueue(struct link *l, long long due_us) {
    l->due_us = due_us;
    l->earlier = last_due;
    l->later = NULL;
    if (last_due) last_due->later = l;
    else first_due = l;
    last_due = l;
}

static void dequeue(struct link *l) {
    if (!l->due_us) return;
    l->due_us = 0;
    if (l->earlier) l->earlier->later = l->later;
    else first_due = l->later;
    if (l->later) l->later->earlier = l->earlier;
    else last_due = l->earlier;
}

/* Opens a socket and shakes hands, waiting for the answer: that happens before a measurement. */
static struct link *dial(int is_control) {
    struct link *l = calloc(1, sizeof *l);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    char text[4096];
    int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    l->fd = socket(AF_INET, SOCK_STREAM, 0);
    l->is_control = is_control;
    l->buffer = malloc(is_control ? BUFFER_BYTES : 1 << 18);
    l->request = malloc(is_control ? 1 : 1 << 18);
    if (connect(l->fd, (struct sockaddr *)&address, sizeof address)) return NULL;
    setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    sprintf(text, "GET /hive/link HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                  "Sec-WebSocket-Protocol: hive-link-1\r\nAuthorization: Bearer %s\r\n\r\n", key);
    flush(l, text, strlen(text));
    ssize_t got = recv(l->fd, text, sizeof text - 1, 0);
    if (got <= 0 || strncmp(text, "HTTP/1.1 101", 12)) {
        fprintf(stderr, "node: %.*s\n", (int)got, text);
        return NULL;
    }
    char frame[4096], first[256];
    sprintf(first, "{\"type\":\"data\",\"session\":\"%s\"}", session);
    const char *message = is_control ? hello : first;
    flush(l, frame, put(frame, 0x81, message, strlen(message)));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = l};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, l->fd, &event);
    return l;
}

static void fill(void) {
    for (; links < wanted; links++)
        if (!dial(0)) exit(1);
}

static int number_after(const char *text, const char *name) {
    const char *found = strstr(text, name);
    return found ? atoi(found + strlen(name)) : 0;
}

static void answer(struct link *l) {
    char out[8192];
    size_t length = put_mark(out, "accepted", l->exchange);
    if (!memmem(l->request, l->request_bytes, "\"stream\":true", 13)) {
        length += put(out + length, 0x82, whole, strlen(whole));
        length += put_mark(out + length, "ended", l->exchange);
    } else {
        length += put(out + length, 0x82, opening, strlen(opening));
        l->chunks_left = chunks_per_stream - 1;
        enqueue(l, now_us() + spacing_us);
    }
    flush(l, out, length);
}

static void take_text(struct link *l, char *text, size_t length) {
    text[length] = 0;
    if (strstr(text, "\"type\":\"open\"")) {
        sscanf(strstr(text, "\"id\":\"") + 6, "%79[^\"]", l->exchange);
        l->request_bytes = 0;
    } else if (strstr(text, "\"type\":\"cancel\"")) {
        char out[300];
        dequeue(l);
        flush(l, out, put_mark(out, "ended", l->exchange));
    } else if (strstr(text, "\"type\":\"welcome\"")) {
        sscanf(strstr(text, "\"session\":\"") + 11, "%150[^\"]", session);
        wanted = number_after(text, "\"links\":");
        fill();
    } else if (strstr(text, "\"type\":\"links\"")) {
        wanted = number_after(text, "\"want\":");
        fill();
    }
}

static void take_bytes(struct link *l, const char *data, size_t length) {
    if (l->request_bytes + length > 1 << 18) exit(1);
    memcpy(l->request + l->request_bytes, data, length);
    l->request_bytes += length;
    char *end = memmem(l->request, l->request_bytes, "\r\n\r\n", 4);
    if (!end) return;
    char *counted = memmem(l->request, end - l->request, "Content-Length:", 15);
    size_t body = counted ? (size_t)atoll(counted + 15) : 0;
    if (l->request_bytes == (size_t)(end + 4 - l->request) + body) answer(l);
}

static void readable(struct link *l) {
    ssize_t got = recv(l->fd, l->buffer + l->length, (l->is_control ? BUFFER_BYTES : 1 << 18) - l->length - 1, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) exit(0);
    l->length += got;
    size_t at = 0;
    while (l->length - at >= 2) {
        unsigned char *head = (unsigned char *)l->buffer + at;
        size_t start = 2, length = head[1] & 0x7F;
        if (length == 126) start = 4, length = l->length - at < 4 ? BUFFER_BYTES : (size_t)head[2] << 8 | head[3];
        if (length == 127) start = 10, length = l->length - at < 10 ? BUFFER_BYTES : (size_t)head[6] << 24 | head[7] << 16 | head[8] << 8 | head[9];
        if (l->length - at < start + length) break;
        char *payload = l->buffer + at + start, kept = payload[length], out[200];
        if (head[0] == 0x81) take_text(l, payload, length);
        else if (head[0] == 0x82) take_bytes(l, payload, length);
        else if (head[0] == 0x89) flush(l, out, put(out, 0x8A, payload, length));
        else if (head[0] == 0x88) exit(0);
        payload[length] = kept;
        at += start + length;
    }
    l->length -= at;
    memmove(l->buffer, l->buffer + at, l->length);
}

static void send_due_chunks(void) {
    long long now = now_us();
    while (first_due && first_due->due_us <= now) {
        struct link *l = first_due;
        char out[4096];
        int more = l->chunks_left-- > 0;
        dequeue(l);
        size_t length = put(out, 0x82, more ? chunk : last, strlen(more ? chunk : last));
        if (more) enqueue(l, now + spacing_us);
        else length += put_mark(out + length, "ended", l->exchange);
        flush(l, out, length);
    }
}

static void beat(void) {
    static long long next_us, seq;
    char text[128], out[200];
    if (now_us() < next_us) return;
    next_us = now_us() + 2000000;
    int length = sprintf(text, "{\"type\":\"heartbeat\",\"seq\":%lld,\"engines\":{\"e\":{\"alive\":true}}}", ++seq);
    if (*session) flush(control, out, put(out, 0x81, text, length));
}

int main(int count, char **arguments) {
    if (count != 5) {
        fprintf(stderr, "usage: node PORT KEY CHUNKS SPACING_US\n");
        return 2;
    }
    port = atoi(arguments[1]);
    key = arguments[2];
    chunks_per_stream = atoi(arguments[3]);
    spacing_us = atoll(arguments[4]);
    prepare_answers();
    epoll_fd = epoll_create1(0);
    if (!(control = dial(1))) return 1;
    struct epoll_event events[EVENTS_AT_ONCE];
    for (;;) {
        long long wait_us = first_due ? first_due->due_us - now_us() : 500000;
        int ready = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, wait_us <= 0 ? 0 : (int)((wait_us + 999) / 1000));
        for (int i = 0; i < ready; i++) readable(events[i].data.ptr);
        send_due_chunks();
        beat();
    }
}
