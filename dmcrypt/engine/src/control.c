#include "control.h"

#include <errno.h>
#include <gcrypt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "arena.h"
#include "device_requests.h"
#include "forgotten_key.h"
#include "key_requests.h"
#include "key_text.h"
#include "read_device.h"
#include "session.h"
#include "session_requests.h"

#define SETTLE_WITH_DAEMON_MS 8000u
/* Leftovers of a killed daemon give the mount back within two seconds. */
#define SETTLE_ALONE_MS 1500u

static void send_message(struct engine *e, const struct wire_header *h, const void *body, int fd)
{
    struct iovec iov[2] = { { (void *)(uintptr_t)h, sizeof *h }, { (void *)(uintptr_t)body, h->length } };
    struct msghdr message = { .msg_iov = iov, .msg_iovlen = h->length != 0 ? 2 : 1 };
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = { 0 };

    if (fd >= 0) {
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    while (sendmsg(e->options.control_fd, &message, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

static void answer(struct request *r, int status, const void *body, size_t length, int fd)
{
    struct wire_header h = { .type = r->header.type, .id = r->header.id, .status = status, .length = (uint32_t)length };

    /* Closed before the daemon hears of it: a lock of the file may hang on the descriptor. */
    for (unsigned i = 0; i < r->fd_count; i++)
        if (r->fds[i] >= 0)
            close(r->fds[i]);
    send_message(r->engine, &h, body, fd);
    free(r);
}

void request_finish(struct request *r, int status, const void *body, size_t length)
{
    answer(r, status, body, status == 0 ? length : 0, -1);
}

void control_send_event(struct engine *e, enum wire_event_kind kind, uint64_t node)
{
    struct wire_event event = { .kind = kind, .node = node };
    struct wire_header h = { .type = WIRE_EVENT, .length = sizeof event };

    send_message(e, &h, &event, -1);
}

void control_describe(struct engine *e, struct wire_hello *hello)
{
    struct arena_info arena = arena_info();
    const char *version = gcry_check_version(NULL);

    *hello = (struct wire_hello){
        .protocol = WIRE_PROTOCOL,
        .arena_kind = arena.kind,
        .arena_size = arena.size,
        .arena_used = arena.used,
        .kdf_memory = arena.kdf_memory,
        .io_threads = e->options.fuse_fd >= 0 ? e->readers : 0,
        .cloned = e->clones,
        .stats_slots = DEVICE_SLOTS,
        .sandbox = e->sandbox,
    };
    session_public_key(hello->public_key);
    session_pattern(hello->pattern);
    memcpy(hello->gcrypt_version, version, strnlen(version, sizeof hello->gcrypt_version - 1));
}

static void hello(struct request *r)
{
    struct wire_hello out;

    control_describe(r->engine, &out);
    answer(r, 0, &out, sizeof out, r->engine->stats_fd);
}

static void status(struct request *r)
{
    struct wire_hello out;

    control_describe(r->engine, &out);
    request_finish(r, 0, &out, sizeof out);
}

static void invalidated(void *arg, int rc)
{
    request_finish(arg, rc, NULL, 0);
}

static void invalidate(struct request *r)
{
    struct wire_invalidate in;
    struct {
        struct fuse_out_header header;
        union {
            struct fuse_notify_inval_inode_out inode;
            struct {
                struct fuse_notify_inval_entry_out out;
                char name[sizeof in.name + 1];
            } entry;
        };
    } m = { 0 };

    memcpy(&in, r->body, sizeof in);
    size_t name = strnlen(in.name, sizeof in.name);
    if (r->engine->options.fuse_fd < 0) {
        request_finish(r, -ENODEV, NULL, 0);
        return;
    }
    if (name != 0) {
        m.header.error = FUSE_NOTIFY_INVAL_ENTRY;
        m.entry.out.parent = in.parent;
        m.entry.out.namelen = (uint32_t)name;
        memcpy(m.entry.name, in.name, name);
        m.header.len = (uint32_t)(sizeof m.header + sizeof m.entry.out + name + 1);
    } else {
        m.header.error = FUSE_NOTIFY_INVAL_INODE;
        m.inode.ino = in.node;
        m.header.len = (uint32_t)(sizeof m.header + sizeof m.inode);
    }
    if (forward_notify(&r->engine->loop.forward, &m, m.header.len, invalidated, r) != 0)
        request_finish(r, -ENOMEM, NULL, 0);
}

static void shut_down(struct request *r)
{
    struct engine *e = r->engine;
    int rc = engine_settle(e, SETTLE_WITH_DAEMON_MS);

    request_finish(r, rc, NULL, 0);
    engine_exit(e, rc == 0 ? 0 : 1);
}

enum place { HERE, IN_ADMIN, IN_KEYS, IN_READING };

struct handler {
    void (*run)(struct request *r);
    uint32_t length; /* of the body; 0: the handler checks */
    unsigned fds_least, fds_most;
    enum place place;
};

static const struct handler handlers[] = {
    [WIRE_HELLO] = { hello, sizeof(struct wire_key_size), 0, 0, HERE },
    [WIRE_ADD_DEVICE] = { request_add_device, 0, 0, WIRE_FDS_MAX, IN_ADMIN },
    [WIRE_LOAD_TABLE] = { request_load_table, 0, 0, WIRE_FDS_MAX, IN_ADMIN },
    [WIRE_REMOVE_DEVICE] = { request_change_device, sizeof(struct wire_node), 0, 0, IN_ADMIN },
    [WIRE_SUSPEND] = { request_change_device, sizeof(struct wire_node), 0, 0, IN_ADMIN },
    [WIRE_RESUME] = { request_change_device, sizeof(struct wire_node), 0, 0, IN_ADMIN },
    [WIRE_REKEY] = { request_rekey_device, sizeof(struct wire_rekey), 0, 0, IN_ADMIN },
    [WIRE_FLUSH] = { request_change_device, sizeof(struct wire_node), 0, 0, IN_ADMIN },
    [WIRE_INVALIDATE] = { invalidate, sizeof(struct wire_invalidate), 0, 0, HERE },
    [WIRE_LOAD_SECRET] = { key_load_secret, sizeof(struct wire_load_secret), 1, 1, IN_READING },
    [WIRE_DROP_SECRET] = { key_drop_secret, sizeof(struct wire_secret), 0, 0, HERE },
    [WIRE_OPEN_KEYSLOT] = { key_open_keyslot, sizeof(struct wire_open_keyslot), 1, 1, IN_KEYS },
    [WIRE_CREATE_KEYSLOT] = { key_create_keyslot, sizeof(struct wire_create_keyslot), 1, 1, IN_KEYS },
    [WIRE_GENERATE_KEY] = { key_generate, sizeof(struct wire_key_size), 0, 0, IN_KEYS },
    [WIRE_LOAD_KEY] = { key_load, sizeof(struct wire_key_size), 1, 1, IN_READING },
    [WIRE_PLAIN_KEY] = { key_plain, sizeof(struct wire_plain_key), 0, 0, IN_KEYS },
    [WIRE_MAKE_DIGEST] = { key_make_digest, sizeof(struct wire_make_digest), 0, 0, IN_KEYS },
    [WIRE_BENCHMARK_KDF] = { key_benchmark, sizeof(struct wire_benchmark), 0, 0, IN_KEYS },
    [WIRE_REFRESH] = { request_change_device, sizeof(struct wire_node), 0, 0, IN_ADMIN },
    [WIRE_READ] = { read_device, sizeof(struct wire_read), 0, 0, IN_ADMIN },
    [WIRE_BENCHMARK_CIPHER] = { key_benchmark_cipher, sizeof(struct wire_cipher_benchmark), 0, 0, IN_KEYS },
    [WIRE_IMPORT_KEY] = { key_import, sizeof(struct wire_blob), 0, 0, IN_KEYS },
    [WIRE_EXPORT_KEY] = { key_export, sizeof(struct wire_token), 0, 0, IN_KEYS },
    [WIRE_MAKE_PKEY] = { key_make_pkey, sizeof(struct wire_key_size), 0, 0, IN_KEYS },
    [WIRE_RSA_KEY] = { key_rsa, 0, 0, 0, IN_KEYS },
    [WIRE_WRITE_KEY] = { key_write, sizeof(struct wire_write_key), 1, 1, IN_READING },
    [WIRE_TABLE_KEY] = { key_of_table, sizeof(struct wire_table_key), 0, 0, IN_KEYS },
    [WIRE_SHOW_KEY] = { key_show, sizeof(struct wire_show_key), 1, 1, IN_READING },
    [WIRE_LOOPAES_KEY] = { key_loopaes, sizeof(struct wire_loopaes_key), 0, 0, IN_KEYS },
    [WIRE_RESIZE] = { request_resize_device, sizeof(struct wire_resize), 0, 0, IN_ADMIN },
    [WIRE_FORGET_KEY] = { request_forget_key, sizeof(struct wire_node), 0, 0, IN_ADMIN },
    [WIRE_RENEW_KEY] = { request_renew_key, sizeof(struct wire_rekey), 0, 0, IN_ADMIN },
    [WIRE_DENY_KEY] = { request_deny_key, sizeof(struct wire_node), 0, 0, IN_ADMIN },
    [WIRE_BUMP_SESSION] = { request_bump_session, 0, 0, 0, IN_ADMIN },
    [WIRE_STATUS] = { status, 0, 0, 0, HERE },
    [WIRE_SHUTDOWN] = { shut_down, 0, 0, 0, IN_ADMIN },
};

#define HANDLERS (sizeof handlers / sizeof *handlers)

static void run_handler(void *arg, unsigned thread)
{
    struct request *r = arg;

    (void)thread;
    handlers[r->header.type].run(r);
}

static void dispatch(struct request *r)
{
    struct engine *e = r->engine;
    struct pool *pools[] = { [IN_ADMIN] = &e->admin, [IN_KEYS] = &e->keys, [IN_READING] = &e->reading };
    const struct handler *h = r->header.type < HANDLERS ? &handlers[r->header.type] : NULL;
    size_t least = h != NULL && h->length == 0 && h->fds_most != 0 ? sizeof(struct wire_device) : 0;

    if (h == NULL || h->run == NULL)
        request_finish(r, -ENOSYS, NULL, 0);
    else if ((h->length != 0 && r->length != h->length) || r->length < least || r->fd_count < h->fds_least
             || r->fd_count > h->fds_most)
        request_finish(r, -EBADMSG, NULL, 0);
    else if (h->place == HERE)
        h->run(r);
    else if (pool_submit(pools[h->place], run_handler, r) != 0)
        request_finish(r, -ENOMEM, NULL, 0);
}

/* The descriptors that came with a message, at most WIRE_FDS_MAX. @return how many */
static unsigned take_descriptors(struct msghdr *message, int *fds)
{
    unsigned count = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            while (count < WIRE_FDS_MAX && CMSG_LEN((count + 1) * sizeof(int)) <= c->cmsg_len) {
                memcpy(&fds[count], CMSG_DATA(c) + count * sizeof(int), sizeof(int));
                count++;
            }
    return count;
}

/* @return false at the end of the connection */
static bool receive(struct engine *e)
{
    static uint8_t buffer[WIRE_MESSAGE_MAX];
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(WIRE_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = { buffer, sizeof buffer };
    struct msghdr message = { .msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = control.room,
                              .msg_controllen = sizeof control.room };
    ssize_t n;

    do
        n = recvmsg(e->options.control_fd, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return false;

    int fds[WIRE_FDS_MAX];
    unsigned fd_count = take_descriptors(&message, fds);

    struct wire_header h = { 0 };
    size_t length = 0;
    if ((size_t)n >= sizeof h) {
        memcpy(&h, buffer, sizeof h);
        length = (size_t)n - sizeof h;
    }
    struct request *r = malloc(sizeof *r + length);
    if (r == NULL || h.length != length || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        for (unsigned i = 0; i < fd_count; i++)
            close(fds[i]);
        free(r);
        struct wire_header refusal = { .type = h.type, .id = h.id, .status = r == NULL ? -ENOMEM : -EBADMSG };
        send_message(e, &refusal, NULL, -1);
        return true;
    }
    *r = (struct request){ .engine = e, .header = h, .fd_count = fd_count, .length = (uint32_t)length };
    memcpy(r->fds, fds, fd_count * sizeof *fds);
    memcpy(r->body, buffer + sizeof h, length);
    dispatch(r);
    return true;
}

/* There is nobody to bring a key. */
static void lose_daemon(struct engine *e, int *fd)
{
    *fd = -1;
    fuse_loop_release(&e->loop, device_table_set_alone(&e->devices), EIO);
}

_Noreturn void control_serve(struct engine *e)
{
    struct pollfd fds[] = {
        { .fd = e->options.control_fd, .events = POLLIN },
        { .fd = e->signal_fd, .events = POLLIN },
        { .fd = e->wake_fd, .events = POLLIN },
    };

    for (;;) {
        if (poll(fds, 3, -1) < 0)
            continue;
        if (fds[1].revents != 0)
            engine_exit(e, engine_settle(e, fds[0].fd >= 0 ? SETTLE_WITH_DAEMON_MS : SETTLE_ALONE_MS) == 0 ? 0 : 1);
        if (fds[2].revents != 0) {
            uint64_t n;
            (void)!read(e->wake_fd, &n, sizeof n);
            control_send_event(e, WIRE_EVENT_UNMOUNTED, 0);
        }
        if (fds[0].revents != 0 && !receive(e))
            lose_daemon(e, &fds[0].fd);
        /* Alone, there is something to go on for only while the mount is there. */
        if (fds[0].fd < 0 && (e->options.fuse_fd < 0 || atomic_load(&e->is_unmounted)))
            engine_exit(e, engine_settle(e, SETTLE_ALONE_MS) == 0 ? 0 : 1);
    }
}
