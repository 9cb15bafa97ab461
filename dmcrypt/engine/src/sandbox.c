#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#elif defined(__s390x__)
#define NATIVE_ARCH AUDIT_ARCH_S390X
#else
#error "sandbox.c: name this machine's AUDIT_ARCH"
#endif

uint32_t sandbox_begin(void)
{
    struct rlimit none = { 0, 0 }, locked;

    setrlimit(RLIMIT_CORE, &none);
    if (getrlimit(RLIMIT_MEMLOCK, &locked) == 0) {
        struct rlimit most = { RLIM_INFINITY, RLIM_INFINITY };
        if (setrlimit(RLIMIT_MEMLOCK, &most) != 0) {
            locked.rlim_cur = locked.rlim_max;
            setrlimit(RLIMIT_MEMLOCK, &locked);
        }
    }
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 ? SANDBOX_NOT_DUMPABLE : 0;
}

void sandbox_close_descriptors(const int *keep, unsigned count)
{
    unsigned next = 3;

    for (unsigned i = 0; i < count; i++) {
        if (keep[i] < 0 || (unsigned)keep[i] < next)
            continue;
        if ((unsigned)keep[i] > next)
            syscall(SYS_close_range, next, (unsigned)keep[i] - 1, 0);
        next = (unsigned)keep[i] + 1;
    }
    syscall(SYS_close_range, next, ~0u, 0);
}

static uint32_t drop_capabilities(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[2] = { 0 };

    for (unsigned long cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
        ;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &header, none) == 0)
        return SANDBOX_NO_CAPABILITIES;
    /* A service's system call filter forbids the call; such a service has none to give up. */
    struct __user_cap_data_struct held[2];
    if (syscall(SYS_capget, &header, held) != 0)
        return 0;
    for (unsigned i = 0; i < 2; i++)
        if (held[i].effective || held[i].permitted || held[i].inheritable)
            return 0;
    return SANDBOX_NO_CAPABILITIES;
}

static uint32_t forbid_paths(void)
{
    /* All rights that each version of the interface knows (landlock(7)): none is then granted anywhere. */
    static const uint64_t known[] = { 0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff };
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

    if (version < 1)
        return 0;
    if (version > (long)(sizeof known / sizeof *known))
        version = (long)(sizeof known / sizeof *known);
    struct landlock_ruleset_attr all = { .handled_access_fs = known[version - 1] };
    long fd = syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0);
    if (fd < 0)
        return 0;
    long rc = syscall(SYS_landlock_restrict_self, fd, 0);
    close((int)fd);
    return rc == 0 ? SANDBOX_LANDLOCK : 0;
}

uint32_t sandbox_drop(void)
{
    uint32_t bits = drop_capabilities();

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return bits | forbid_paths();
}

/* The system calls of serving: I/O on descriptors that are there, memory without execution, waiting. */
static const unsigned allowed[] = {
    SYS_read, SYS_readv, SYS_write, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_fdatasync, SYS_fallocate, SYS_fstat,
#ifdef SYS_newfstatat
    SYS_newfstatat,
#endif
    SYS_lseek, SYS_close, SYS_pipe2, SYS_splice, SYS_recvmsg, SYS_recvfrom, SYS_sendmsg, SYS_sendto, SYS_shutdown,
    SYS_ppoll,
#ifdef SYS_poll
    SYS_poll,
#endif
    SYS_futex, SYS_futex_waitv, SYS_sched_yield, SYS_clock_gettime, SYS_clock_nanosleep, SYS_nanosleep,
    SYS_restart_syscall, SYS_getrandom, SYS_memfd_secret, SYS_ftruncate, SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk,
    SYS_mlock2, SYS_rt_sigreturn, SYS_rt_sigprocmask, SYS_getpid, SYS_gettid, SYS_exit, SYS_exit_group,
    SYS_accept4, /* claim.c; what is not a listening socket refuses */
};

/* And these only without PROT_EXEC, their third argument. */
static const unsigned not_executable[] = { SYS_mmap, SYS_mprotect };

/* And fcntl(2) to move the lock of a data area, by its second argument alone. */
#define LOCK_STATEMENTS 4u

#define ALLOWED (sizeof allowed / sizeof *allowed)
#define NOT_EXECUTABLE (sizeof not_executable / sizeof *not_executable)

int sandbox_close(void)
{
    struct sock_filter code[5 + 2 * ALLOWED + 4 * NOT_EXECUTABLE + LOCK_STATEMENTS + 1];
    unsigned n = 0;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const uint32_t low = 0;
#else
    const uint32_t low = 4;
#endif
    const uint32_t second = offsetof(struct seccomp_data, args[1]) + low;
    const uint32_t third = offsetof(struct seccomp_data, args[2]) + low;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < ALLOWED; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    for (size_t i = 0; i < NOT_EXECUTABLE; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, not_executable[i], 0, 3);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, third);
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 3);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, second);
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_OFD_SETLK, 0, 1);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    struct sock_fprog program = { .len = (unsigned short)n, .filter = code };
    long rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (rc != 0)
        return rc < 0 ? -errno : -EBUSY;
    return SANDBOX_SECCOMP;
}
