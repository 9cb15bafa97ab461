#include "claim.h"

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "rsa.h"
#include "session.h"
#include "thread.h"

#define POINT 32u
#define QUESTION_MAX (POINT + RSA_SIZE)
/* keystored asks at once; one that does not keeps the next from being heard. */
#define PATIENCE_MS 1000

static bool is_own(const uint8_t *key, size_t length)
{
    uint8_t own[POINT];

    session_public_key(own);
    return (length == POINT || length == QUESTION_MAX) && memcmp(key, own, POINT) == 0
           && (length == POINT || rsa_is_own(key + POINT));
}

static void answer(int connection)
{
    uint8_t question[QUESTION_MAX + 1]; /* what is too long is seen to be */
    struct pollfd asked = { .fd = connection, .events = POLLIN };

    if (poll(&asked, 1, PATIENCE_MS) != 1)
        return;
    const ssize_t n = recv(connection, question, sizeof question, MSG_DONTWAIT);
    if (n <= 0)
        return;
    const uint8_t verdict = is_own(question, (size_t)n);
    (void)!send(connection, &verdict, sizeof verdict, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void *answer_all(void *arg)
{
    const struct timespec pause = { .tv_nsec = 100000000 };
    const int *listener = arg;

    for (;;) {
        const int connection = accept4(*listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0) {
            nanosleep(&pause, NULL); /* out of descriptors */
            continue;
        }
        answer(connection);
        close(connection);
    }
    return NULL;
}

int claim_start(int *listener)
{
    return thread_start("claim", answer_all, listener);
}
