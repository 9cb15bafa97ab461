/** The messages between daemon and engine.
 *
 * One SOCK_SEQPACKET message is one `struct wire_header` and one body. Integers are of the host's byte
 * order: both ends run on one machine, from one build. A request carries a non-zero id; its reply carries
 * the same type and id, and a status: 0, or a negative errno. Replies may come in another order than their
 * requests: a KDF takes seconds. Descriptors travel as SCM_RIGHTS of the request that names them.
 *
 * messages.py packs and parses the same layouts; tests/unit/engine/test_messages.py compares the sizes.
 */
#ifndef FUSECRYPT_WIRE_H
#define FUSECRYPT_WIRE_H

#include <stdint.h>

#define WIRE_PROTOCOL 1u
#define WIRE_MESSAGE_MAX 65536u
#define WIRE_FDS_MAX 4u
#define WIRE_NAME_MAX 64u     /* cipher and hash names, NUL-terminated */
#define WIRE_TOKEN_MAX 2144u  /* a protected key token */
#define WIRE_SALT_MAX 64u
#define WIRE_DIGEST_MAX 512u
#define WIRE_SEGMENTS_MAX 20u

enum wire_type {
    WIRE_HELLO = 1,
    WIRE_ADD_DEVICE = 2,    /* wire_device + segments; descriptors are indexed by segments */
    WIRE_LOAD_TABLE = 3,    /* the same: replaces the table of a suspended device */
    WIRE_REMOVE_DEVICE = 4, /* wire_node: refuse new I/O, drain, fdatasync, drop the keys */
    WIRE_SUSPEND = 5,       /* wire_node: drain, park new I/O or with WIRE_SUSPEND_FAIL refuse it; WIRE_SUSPEND_WIPE drops
                               the keys */
    WIRE_RESUME = 6,        /* wire_node: replay what was parked; -ENOKEY while a key is missing */
    WIRE_REKEY = 7,         /* wire_rekey: put a key into one segment of a suspended device */
    WIRE_FLUSH = 8,         /* wire_node: fdatasync the backing descriptors */
    WIRE_INVALIDATE = 9,    /* wire_invalidate: drop the kernel's pages and, if named, the entry */
    WIRE_LOAD_SECRET = 10,  /* wire_load_secret + 1 descriptor -> wire_secret */
    WIRE_DROP_SECRET = 11,  /* wire_secret */
    WIRE_OPEN_KEYSLOT = 12, /* wire_open_keyslot + 1 descriptor -> wire_token; -ENOKEY: wrong passphrase */
    WIRE_CREATE_KEYSLOT = 13, /* wire_create_keyslot + 1 descriptor */
    WIRE_GENERATE_KEY = 14, /* wire_key_size -> wire_token */
    WIRE_LOAD_KEY = 15,     /* wire_key_size + 1 descriptor -> wire_token */
    WIRE_PLAIN_KEY = 16,    /* wire_plain_key -> wire_token */
    WIRE_MAKE_DIGEST = 17,  /* wire_make_digest -> wire_digest_value */
    WIRE_BENCHMARK_KDF = 18, /* wire_benchmark -> wire_kdf with iterations or time and memory filled in */
    WIRE_IMPORT_KEY = 19,   /* wire_blob (a transport blob) -> wire_token */
    WIRE_STATUS = 20,       /* -> wire_hello */
    WIRE_SHUTDOWN = 21,     /* drain, fdatasync everything, wipe, reply, exit 0 */
    WIRE_EXPORT_KEY = 22,   /* wire_token -> wire_exported_key: what may be shown of a volume key */
    WIRE_MAKE_PKEY = 23,    /* wire_key_size, size being a session_key_type -> wire_token of IBM Z's layout */
    WIRE_WRITE_KEY = 24,    /* wire_write_key + 1 descriptor, which gets the clear key; -EACCES: of a coprocessor; -EPERM:
                               of an engine that serves a mount */
    WIRE_RESIZE = 30,       /* wire_resize: another size, within the backing store; -ENOSPC: beyond it */
    WIRE_BENCHMARK_CIPHER = 31, /* wire_cipher_benchmark -> wire_cipher_speed */
    WIRE_READ = 32,         /* wire_read -> bytes, fewer at the end; -EPERM of an engine that serves a mount */
    WIRE_REFRESH = 33,      /* wire_node: flag WIRE_DISCARDS on or off, under I/O */
    WIRE_LOOPAES_KEY = 40,  /* wire_loopaes_key -> wire_loopaes_keys */
    WIRE_TABLE_KEY = 41,    /* wire_table_key -> wire_token */
    WIRE_SHOW_KEY = 42,     /* wire_show_key + 1 descriptor, which gets hexadecimal text; -EACCES: of a coprocessor */
    WIRE_RSA_KEY = 50,      /* -> wire_rsa_key; made at the first request, which takes a second */
    WIRE_FORGET_KEY = 51,   /* wire_node: finish what runs, forget the key; the next I/O is an event, and waits. -EINVAL: a
                               key that no coprocessor sent */
    WIRE_RENEW_KEY = 52,    /* wire_rekey: the key that a device wants; -EALREADY: it wants none */
    WIRE_DENY_KEY = 53,     /* wire_node: there is none; flags: milliseconds in which I/O fails before it asks again */
    WIRE_BUMP_SESSION = 54, /* -> wire_hello of the new session; -EBUSY: a device is being changed; see forgotten_key.h */
    WIRE_EVENT = 100,       /* from the engine, id 0: wire_event */
};

struct wire_header {
    uint32_t type;
    uint32_t id;
    int32_t status;
    uint32_t length; /* of the body, bytes */
};

enum wire_arena { WIRE_ARENA_MEMFD_SECRET = 1, WIRE_ARENA_MLOCK = 2 };

struct wire_hello {
    uint32_t protocol;
    uint32_t arena_kind; /* enum wire_arena */
    uint64_t arena_size; /* bytes mapped */
    uint64_t arena_used;
    uint64_t kdf_memory; /* bytes of Argon2 work memory in use now */
    uint32_t io_threads;
    uint32_t cloned;     /* FUSE descriptors cloned; 0: the threads share one */
    uint32_t stats_slots;
    uint32_t sandbox;    /* bit 0 seccomp, bit 1 landlock, bit 2 not dumpable, bit 3 capabilities dropped */
    uint8_t public_key[32]; /* X25519, of this session */
    uint8_t pattern[32];    /* of this session's wrapping key; the last 32 bytes of every token */
    char gcrypt_version[32];
};

struct wire_token {
    uint32_t length; /* 0: none */
    uint32_t pad;
    uint8_t bytes[WIRE_TOKEN_MAX];
};

enum wire_target { WIRE_CRYPT = 1, WIRE_LINEAR = 2, WIRE_ZERO = 3, WIRE_ERROR = 4 };
#define WIRE_IV_LARGE_SECTORS 1u
#define WIRE_ANY_XTS_KEY 2u /* of a raw table: equal halves are taken, as by the kernel */

struct wire_segment {
    uint64_t start;          /* bytes, in the device */
    uint64_t length;         /* bytes */
    uint64_t backing_offset; /* bytes, in the backing descriptor */
    uint64_t iv_offset;      /* 512-byte sectors, added to the sector number within the segment */
    uint32_t target;         /* enum wire_target */
    uint32_t fd_index;       /* of the message's descriptors */
    uint32_t flags;          /* WIRE_IV_LARGE_SECTORS, WIRE_ANY_XTS_KEY */
    uint32_t pad;
    char cipher[WIRE_NAME_MAX]; /* dm-crypt's spelling: aes-xts-plain64 */
    struct wire_token token;
};

#define WIRE_READ_ONLY 1u
#define WIRE_DISCARDS 2u /* hole punching reaches the backing store */

struct wire_device {
    uint64_t node; /* FUSE node id */
    uint64_t size; /* bytes */
    uint32_t sector_size;
    uint32_t flags; /* WIRE_READ_ONLY, WIRE_DISCARDS */
    uint32_t segments;
    uint32_t pad;
};
/* The reply to ADD_DEVICE is a uint32_t stats slot and a uint32_t pad. */

#define WIRE_SUSPEND_WIPE 1u
#define WIRE_SUSPEND_FAIL 2u

struct wire_node {
    uint64_t node;
    uint32_t flags;
    uint32_t pad;
};

struct wire_resize {
    uint64_t node;
    uint64_t size; /* bytes */
};

struct wire_rekey {
    uint64_t node;
    uint32_t segment;
    uint32_t pad;
    struct wire_token token;
};

struct wire_invalidate {
    uint64_t node;   /* 0: no inode */
    uint64_t parent; /* of the entry */
    char name[256];  /* empty: no entry */
};

enum wire_secret_mode {
    WIRE_SECRET_LINE = 1, /* up to the first newline, which is dropped, or the end */
    WIRE_SECRET_ALL = 2,  /* size bytes from offset, or to the end when size is 0 */
};

struct wire_load_secret {
    uint32_t mode;
    uint32_t pad;
    uint64_t offset; /* bytes to skip */
    uint64_t size;   /* bytes wanted; 0: all. Fewer in the file: -ENODATA */
};

struct wire_secret {
    uint64_t handle;
    uint64_t length; /* bytes */
};

enum wire_kdf_type { WIRE_PBKDF2 = 1, WIRE_ARGON2I = 2, WIRE_ARGON2ID = 3 };

struct wire_kdf {
    uint32_t type;
    uint32_t iterations; /* PBKDF2 iterations, or Argon2 time */
    uint32_t memory;     /* Argon2: KiB */
    uint32_t lanes;      /* Argon2: cpus */
    char hash[WIRE_NAME_MAX]; /* PBKDF2 */
    uint32_t salt_length;
    uint32_t pad;
    uint8_t salt[WIRE_SALT_MAX];
};

struct wire_keyslot {
    uint32_t key_size;      /* of the volume key, bytes */
    uint32_t stripes;       /* AF */
    uint32_t area_key_size; /* bytes */
    uint32_t pad;
    uint64_t area_offset; /* bytes */
    uint64_t area_length;
    char af_hash[WIRE_NAME_MAX];
    char area_cipher[WIRE_NAME_MAX]; /* aes-xts-plain64 */
    struct wire_kdf kdf;
};

struct wire_digest {
    char hash[WIRE_NAME_MAX];
    uint32_t iterations;
    uint32_t salt_length;
    uint32_t digest_length;
    uint32_t pad;
    uint8_t salt[WIRE_SALT_MAX];
    uint8_t digest[WIRE_DIGEST_MAX];
};

struct wire_open_keyslot {
    uint64_t secret; /* handle */
    struct wire_keyslot keyslot;
    struct wire_digest digest;
};

struct wire_create_keyslot {
    uint64_t secret;
    struct wire_token token; /* of the volume key */
    struct wire_keyslot keyslot;
};

#define WIRE_KEY_XTS 1u /* refuse equal halves */

struct wire_key_size {
    uint32_t size; /* bytes */
    uint32_t flags;
};

struct wire_plain_key {
    uint64_t secret;
    uint32_t key_size;    /* bytes */
    uint32_t hash_length; /* bytes taken from the hash; 0: as many as key_size wants */
    uint32_t flags;       /* WIRE_KEY_XTS */
    uint32_t pad;
    char hash[WIRE_NAME_MAX]; /* "plain": no hash, zero-padded; "": the secret is the key itself */
};

struct wire_loopaes_key {
    uint64_t secret;
    uint32_t key_size; /* of one key, bytes */
    uint32_t pad;
    char hash[WIRE_NAME_MAX]; /* "": SHA-256, SHA-384 or SHA-512, by the key's size */
};

struct wire_table_key {
    uint64_t secret; /* hexadecimal text */
    uint64_t offset; /* of this key's, characters */
    uint32_t size;   /* of the key, bytes */
    uint32_t pad;
};

struct wire_show_key {
    uint64_t node;
    uint32_t segment;
    uint32_t pad;
};

enum wire_key_form { WIRE_KEY_RAW = 1, WIRE_KEY_TEXT = 2 };

struct wire_write_key {
    struct wire_token token;
    uint32_t form; /* enum wire_key_form */
    uint32_t pad;
};

struct wire_loopaes_keys {
    uint32_t count; /* 1, 64, or 65 with the IV seed */
    uint32_t pad;
    struct wire_token token; /* of all of them */
};

struct wire_make_digest {
    struct wire_token token;
    struct wire_digest digest; /* digest empty, digest_length the length wanted */
};

struct wire_digest_value {
    uint32_t length;
    uint32_t pad;
    uint8_t bytes[WIRE_DIGEST_MAX];
};

struct wire_benchmark {
    struct wire_kdf kdf; /* type, hash, lanes and, as a ceiling, memory */
    uint32_t key_size;
    uint32_t milliseconds;
};

#define WIRE_READ_MAX 8192u

struct wire_read {
    uint64_t node;
    uint64_t offset; /* bytes */
    uint32_t size;   /* bytes */
    uint32_t pad;
};

struct wire_cipher_benchmark {
    char cipher[WIRE_NAME_MAX]; /* aes-xts-plain64 */
    uint32_t key_size;          /* bytes */
    uint32_t sector_size;
    uint32_t milliseconds; /* for each of the two directions */
    uint32_t pad;
};

/* Bytes, and the nanoseconds that they took. */
struct wire_cipher_speed {
    uint64_t encrypted, encrypt_time;
    uint64_t decrypted, decrypt_time;
};

struct wire_blob {
    uint32_t length;
    uint32_t key_size; /* wanted, bytes; 0: any */
    uint8_t bytes[4096];
};

struct wire_rsa_key {
    uint32_t length; /* of the modulus, bytes; the exponent is 65537 */
    uint32_t pad;
    uint8_t modulus[512]; /* big-endian */
};

#define WIRE_SECURE_KEY_MAX 672u

enum wire_key_kind {
    WIRE_CLEAR = 1,     /* no token: nothing of it is shown */
    WIRE_SECURE = 2,    /* well-formed secure key tokens: shown, since only a coprocessor can use them */
    WIRE_PROTECTED = 3, /* protected key tokens of this session: the volume key that they make */
    WIRE_FRAGMENT = 4,  /* the beginning of a secure key token: readable by all, so no key */
};

struct wire_exported_key {
    uint32_t kind;   /* enum wire_key_kind */
    uint32_t length; /* of the secure key */
    uint8_t secure[WIRE_SECURE_KEY_MAX];
    struct wire_token token; /* of a protected key */
};

enum wire_event_kind { WIRE_EVENT_UNMOUNTED = 1, WIRE_EVENT_KEY_WANTED = 2 };

struct wire_event {
    uint32_t kind;
    uint32_t pad;
    uint64_t node; /* of KEY_WANTED */
};

/* One a device, in the memfd that comes with HELLO's reply; counters since the device was added. */
struct wire_stats {
    uint64_t node;
    uint64_t reads, writes, flushes;
    uint64_t read_bytes, write_bytes;
    uint64_t partial; /* requests that needed a read-modify-write or an unaligned read */
    uint64_t zeroed_bytes;
    uint64_t errors;
    int64_t last_error; /* errno of the backing store */
    uint64_t in_flight;
    uint64_t reserved[5];
};

_Static_assert(sizeof(struct wire_header) == 16, "header");
_Static_assert(sizeof(struct wire_stats) == 128, "stats: two cache lines");
_Static_assert(sizeof(struct wire_device) + WIRE_SEGMENTS_MAX * sizeof(struct wire_segment) + sizeof(struct wire_header)
                   <= WIRE_MESSAGE_MAX, "a table fits a message");

#endif
