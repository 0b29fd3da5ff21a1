/* A fake inference engine, fast enough never to be the bottleneck of a benchmark.
 *
 *     engine PORT CHUNKS SPACING_US        (port 0: any free one; the port is printed on stdout)
 *
 * It speaks HTTP/1.1 with keep-alive on 127.0.0.1, in one thread, and knows one model, m:latest, which is
 * always loaded. A GET is answered from a table. A POST is answered whole, or, when its body says
 * "stream":true, as a stream of CHUNKS chunks, one every SPACING_US microseconds and the first at once, and a
 * last one that ends it. The form follows the path: /v1/... is OpenAI's, /api/chat is Ollama's chat, any other
 * Ollama's generate.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
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
    FIRST_BUFFER_BYTES = 4096,
    MAX_REQUEST_BYTES = 4 << 20,
    EVENTS_AT_ONCE = 512,
};

struct bytes {
    char *data;
    size_t length;
};

/* What one dialect's answers look like on the wire, prepared once. */
struct form {
    struct bytes whole;       /* head and body of an answer that is not streamed */
    struct bytes stream_open; /* head of a stream and its first chunk */
    struct bytes chunk;
    struct bytes last; /* the chunk that says the stream is done, and the end of the body */
};

struct connection {
    int fd;
    char *buffer;
    size_t length, capacity;
    size_t head_bytes, request_bytes; /* of the request at the buffer's start; 0 until its head is complete */
    const struct form *form;
    int chunks_left;  /* while streaming */
    long long due_us; /* when the next chunk is due; 0: not streaming */
    struct connection *earlier, *later;
};

/* The streams, ordered by due time. All have the same spacing, so whoever was just served goes to the end. */
static struct connection *first_due, *last_due;
static int chunks_per_stream;
static long long spacing_us;
static int epoll_fd;

#define CREATED "\"created_at\":\"2025-01-01T00:00:00.000000Z\""
#define OLLAMA "{\"model\":\"m:latest\"," CREATED ","
#define STATISTICS                                                                                          \
    "\"done\":true,\"done_reason\":\"stop\",\"total_duration\":123456789,\"load_duration\":1234567,"        \
    "\"prompt_eval_count\":10,\"prompt_eval_duration\":2345678,\"eval_count\":12,\"eval_duration\":3456789}"
#define MESSAGE(text) "\"message\":{\"role\":\"assistant\",\"content\":\"" text "\"},"
#define OPENAI(object)                                                                                      \
    "{\"id\":\"chatcmpl-1\",\"object\":\"" object "\",\"created\":1735689600,\"model\":\"m:latest\","
#define EVENT(choice) "data: " OPENAI("chat.completion.chunk") "\"choices\":[{\"index\":0," choice "}]}\n\n"
#define SENTENCE "Hello there, this is a response of a few tokens."

#define MODEL                                                                                               \
    "\"name\":\"m:latest\",\"model\":\"m:latest\",\"size\":1000000000,"                                     \
    "\"digest\":\"0000000000000000000000000000000000000000000000000000000000000000\","                      \
    "\"details\":{\"parent_model\":\"\",\"format\":\"gguf\",\"family\":\"llama\",\"families\":[\"llama\"]," \
    "\"parameter_size\":\"1B\",\"quantization_level\":\"Q4_0\"}"

static const struct {
    const char *start, *json;
} fixed_answers[] = {
    {"GET /api/tags ", "{\"models\":[{" MODEL ",\"modified_at\":\"2025-01-01T00:00:00Z\"}]}"},
    {"GET /api/ps ", "{\"models\":[{" MODEL ",\"size_vram\":1000000000,\"context_length\":4096,"
                     "\"expires_at\":\"2318-01-01T00:00:00Z\"}]}"},
    {"GET /api/version ", "{\"version\":\"0.33.0\"}"},
    {"GET /v1/models ", "{\"object\":\"list\",\"data\":[{\"id\":\"m:latest\",\"object\":\"model\","
                        "\"created\":1735689600,\"owned_by\":\"library\"}]}"},
    {"POST /api/show ", "{\"capabilities\":[\"completion\",\"tools\"],\"details\":{\"family\":\"llama\"},"
                        "\"model_info\":{\"general.architecture\":\"llama\",\"llama.context_length\":4096}}"},
};

static struct form generate, chat, openai;

static long long now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static struct bytes bytes_of(char *text) { return (struct bytes){text, strlen(text)}; }

static struct bytes whole_answer(int status, const char *json) {
    char *text;
    const char *format = "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s";
    if (asprintf(&text, format, status, status == 200 ? "OK" : "Refused", strlen(json), json) < 0) exit(1);
    return bytes_of(text);
}

static struct bytes chunked(const char *before, const char *payload, const char *after) {
    char *text;
    if (asprintf(&text, "%s%zx\r\n%s\r\n%s", before, strlen(payload), payload, after) < 0) exit(1);
    return bytes_of(text);
}

static struct form form_of(const char *type, const char *whole, const char *chunk, const char *last) {
    char *head;
    const char *format = "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n";
    if (asprintf(&head, format, type) < 0) exit(1);
    return (struct form){whole_answer(200, whole), chunked(head, chunk, ""), chunked("", chunk, ""),
                         chunked("", last, "0\r\n\r\n")};
}

static void prepare_answers(void) {
    generate = form_of("application/x-ndjson", OLLAMA "\"response\":\"" SENTENCE "\"," STATISTICS,
                       OLLAMA "\"response\":\" token\",\"done\":false}\n",
                       OLLAMA "\"response\":\"\"," STATISTICS "\n");
    chat = form_of("application/x-ndjson", OLLAMA MESSAGE(SENTENCE) STATISTICS,
                   OLLAMA MESSAGE(" token") "\"done\":false}\n",
                   OLLAMA MESSAGE("") STATISTICS "\n");
    openai = form_of("text/event-stream",
                     OPENAI("chat.completion") "\"choices\":[{\"index\":0," MESSAGE(SENTENCE)
                         "\"finish_reason\":\"stop\"}],"
                         "\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":12,\"total_tokens\":22}}",
                     EVENT("\"delta\":{\"content\":\" token\"},\"finish_reason\":null"),
                     EVENT("\"delta\":{},\"finish_reason\":\"stop\"") "data: [DONE]\n\n");
}

static void enqueue(struct connection *c, long long due_us) {
    c->due_us = due_us;
    c->earlier = last_due;
    c->later = NULL;
    if (last_due) last_due->later = c;
    else first_due = c;
    last_due = c;
}

static void dequeue(struct connection *c) {
    if (!c->due_us) return;
    c->due_us = 0;
    if (c->earlier) c->earlier->later = c->later;
    else first_due = c->later;
    if (c->later) c->later->earlier = c->earlier;
    else last_due = c->earlier;
}

static void close_connection(struct connection *c) {
    dequeue(c);
    close(c->fd);
    free(c->buffer);
    free(c);
}

/* Says whether all of it was sent. An answer is far smaller than a socket's buffer, so a short write means a
 * stuck peer: the connection is then closed, and who counts streams sees a broken one, not a silent gap. */
static int sent(struct connection *c, struct bytes answer) {
    return send(c->fd, answer.data, answer.length, MSG_NOSIGNAL) == (ssize_t)answer.length;
}

static int starts_with(const char *text, const char *start) {
    return !strncasecmp(text, start, strlen(start));
}

/* Reads Content-Length from the head at the buffer's start; -1 when the body has no length. */
static long long body_bytes(const char *head, const char *end) {
    for (const char *line = head; line < end; line++) {
        if (starts_with(line, "content-length:")) return atoll(line + strlen("content-length:"));
        if (starts_with(line, "transfer-encoding:")) return -1;
        line = memchr(line, '\n', end - line);
        if (!line) break;
    }
    return 0;
}

static int asks_for_stream(const char *body, size_t length) {
    const char key[] = "\"stream\":", *end = body + length;
    const char *found = memmem(body, length, key, sizeof key - 1);
    if (!found) return 0;
    found += sizeof key - 1;
    while (found < end && *found == ' ') found++;
    return end - found >= 4 && !memcmp(found, "true", 4);
}

/* Answers the complete request at the buffer's start; says whether the connection is still of use. */
static int answer(struct connection *c) {
    for (size_t i = 0; i < sizeof fixed_answers / sizeof *fixed_answers; i++) {
        if (!starts_with(c->buffer, fixed_answers[i].start)) continue;
        struct bytes reply = whole_answer(200, fixed_answers[i].json);
        int ok = sent(c, reply);
        free(reply.data);
        return ok;
    }
    if (!starts_with(c->buffer, "POST ")) {
        sent(c, whole_answer(404, "{\"error\":\"404 page not found\"}"));
        return 0;
    }
    c->form = starts_with(c->buffer, "POST /v1/")        ? &openai
              : starts_with(c->buffer, "POST /api/chat") ? &chat
                                                         : &generate;
    if (!asks_for_stream(c->buffer + c->head_bytes, c->request_bytes - c->head_bytes))
        return sent(c, c->form->whole);
    c->chunks_left = chunks_per_stream - 1;
    enqueue(c, now_us() + spacing_us);
    return sent(c, c->form->stream_open);
}

/* Finds how long the request at the buffer's start is; says whether that can be known and is bearable. */
static int measure(struct connection *c) {
    const char *end = memmem(c->buffer, c->length, "\r\n\r\n", 4);
    if (!end) return 1;
    long long body = body_bytes(c->buffer, end);
    c->head_bytes = end + 4 - c->buffer;
    if (body < 0) sent(c, whole_answer(411, "{\"error\":\"this engine wants a Content-Length\"}"));
    if (body < 0 || body > MAX_REQUEST_BYTES) return 0;
    c->request_bytes = c->head_bytes + body;
    return 1;
}

/* Answers every complete request in the buffer, one at a time; says whether the connection is still of use. */
static int serve(struct connection *c) {
    while (c->length && !c->due_us) {
        if (!c->request_bytes && !measure(c)) return 0;
        if (!c->request_bytes || c->length < c->request_bytes) return 1;
        if (!answer(c)) return 0;
        c->length -= c->request_bytes;
        memmove(c->buffer, c->buffer + c->request_bytes, c->length);
        c->request_bytes = 0;
    }
    return 1;
}

/* Makes room for the request; says whether there is any to read into. */
static int make_room(struct connection *c) {
    size_t wanted = c->request_bytes ? c->request_bytes : c->length + FIRST_BUFFER_BYTES;
    if (wanted > MAX_REQUEST_BYTES + FIRST_BUFFER_BYTES) return 0;
    if (wanted > c->capacity) {
        c->buffer = realloc(c->buffer, wanted);
        if (!c->buffer) exit(1);
        c->capacity = wanted;
    }
    return c->capacity > c->length;
}

static void readable(struct connection *c) {
    if (!make_room(c)) return close_connection(c);
    ssize_t got = recv(c->fd, c->buffer + c->length, c->capacity - c->length, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return close_connection(c);
    c->length += got;
    if (!serve(c)) close_connection(c);
}

static void send_due_chunks(void) {
    long long now = now_us();
    while (first_due && first_due->due_us <= now) {
        struct connection *c = first_due;
        int more = c->chunks_left-- > 0;
        dequeue(c);
        if (more) enqueue(c, now + spacing_us);
        if (!sent(c, more ? c->form->chunk : c->form->last) || (!more && !serve(c))) close_connection(c);
    }
}

static void accept_all(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = calloc(1, sizeof *c);
        if (!c) exit(1);
        c->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_on(int port) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) {
        perror("engine");
        exit(1);
    }
    socklen_t size = sizeof address;
    getsockname(fd, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "usage: engine PORT CHUNKS SPACING_US\n");
        return 2;
    }
    chunks_per_stream = atoi(arguments[2]);
    spacing_us = atoll(arguments[3]);
    prepare_answers();
    epoll_fd = epoll_create1(0);
    int listener = listen_on(atoi(arguments[1]));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS_AT_ONCE];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        long long wait_us = first_due ? first_due->due_us - now_us() : 0;
        int wait_ms = !first_due ? -1 : wait_us <= 0 ? 0 : (int)((wait_us + 999) / 1000);
        int ready = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, wait_ms);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr) readable(events[i].data.ptr);
            else accept_all(listener);
        }
        send_due_chunks();
    }
}
