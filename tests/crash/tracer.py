#!/usr/bin/env python3
"""Run a program and kill it with -9 right before or after one of its state-changing system calls.

    tracer.py --record FILE -- PROGRAM …            write down every state-changing call, one JSON object a line
    tracer.py --kill-at N [--after] -- PROGRAM …    kill it at the N-th, before the kernel does it or right after
    tracer.py --kill-in SECONDS -- PROGRAM …        kill it after so long

What changes state is found by watching the program: every call counts but those known only to look, to wait or to
manage the process's own memory and descriptors. A call that nobody thought of counts. Exits with the program's status,
or with 137 when it killed it. Needs Linux 5.3 on x86_64 or aarch64. Only the program itself is traced, not what it
starts: starting something is a call of its own, and what was started goes on or ends as its unit decides.
"""

import argparse
import ctypes
import json
import os
import platform
import signal
import struct
import sys
import threading
import time
from pathlib import Path

TRACEME, CONT, SYSCALL, SETOPTIONS, GET_SYSCALL_INFO = 0, 7, 24, 0x4200, 0x420E
PEEKDATA = 2
O_TRACESYSGOOD, O_EXITKILL = 1, 1 << 20
SYSCALL_STOP = signal.SIGTRAP | 0x80
ENTRY, EXIT = 1, 2
KILLED = 137

# Calls that only look, wait, or manage what dies with the process. Numbers: x86_64, aarch64 (-1: not there).
HARMLESS = {
    "read": (0, 63), "close": (3, 57), "stat": (4, -1), "fstat": (5, 80), "lstat": (6, -1), "poll": (7, -1),
    "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "ioctl": (16, 29),
    "pread64": (17, 67), "readv": (19, 65), "access": (21, -1), "pipe": (22, -1), "select": (23, -1),
    "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233), "dup": (32, 23), "dup2": (33, -1),
    "nanosleep": (35, 101), "getpid": (39, 172), "socket": (41, 198), "connect": (42, 203), "sendto": (44, 206),
    "recvfrom": (45, 207), "sendmsg": (46, 211), "recvmsg": (47, 212), "shutdown": (48, 210), "bind": (49, 200),
    "getsockname": (51, 204), "getpeername": (52, 205), "setsockopt": (54, 208), "getsockopt": (55, 209),
    "execve": (59, 221), "uname": (63, 160), "fcntl": (72, 25), "getcwd": (79, 17), "readlink": (89, -1),
    "umask": (95, 166), "gettimeofday": (96, 169), "getrlimit": (97, 163), "getuid": (102, 174), "getgid": (104, 176),
    "geteuid": (107, 175), "getegid": (108, 177), "getppid": (110, 173), "getgroups": (115, 158),
    "getresuid": (118, 148), "getresgid": (120, 150), "sigaltstack": (131, 132), "statfs": (137, 43),
    "fstatfs": (138, 44), "prctl": (157, 167), "arch_prctl": (158, -1), "setrlimit": (160, 164), "gettid": (186, 178),
    "futex": (202, 98), "sched_getaffinity": (204, 123), "epoll_create": (213, -1), "getdents64": (217, 61),
    "set_tid_address": (218, 96), "fadvise64": (221, 223), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "exit": (60, 93), "epoll_wait": (232, -1),
    "epoll_ctl": (233, 21), "newfstatat": (262, 79), "readlinkat": (267, 78), "faccessat": (269, 48),
    "pselect6": (270, 72), "ppoll": (271, 73), "set_robust_list": (273, 99), "get_robust_list": (274, 100),
    "epoll_create1": (291, 20), "dup3": (292, 24), "pipe2": (293, 59), "prlimit64": (302, 261),
    "getrandom": (318, 278), "statx": (332, 291), "rseq": (334, 293), "close_range": (436, 436),
    "faccessat2": (439, 439), "sysinfo": (99, 179), "getpgrp": (111, -1), "getsid": (124, 156),
    "sched_getparam": (143, 121), "membarrier": (324, 283), "restart_syscall": (219, 128), "capget": (125, 90),
    "sync_file_range": (277, 84),
}  # fmt: skip
# Names, for the record alone.
NAMES = {
    "write": (1, 64), "open": (2, -1), "pwrite64": (18, 68), "writev": (20, 66), "sendfile": (40, 71),
    "clone": (56, 220), "fork": (57, -1), "vfork": (58, -1), "wait4": (61, 260), "kill": (62, 129), "flock": (73, 32),
    "fsync": (74, 82), "fdatasync": (75, 83), "truncate": (76, 45), "ftruncate": (77, 46), "rename": (82, -1),
    "mkdir": (83, -1), "rmdir": (84, -1), "link": (86, -1), "unlink": (87, -1), "symlink": (88, -1), "chmod": (90, -1),
    "fchmod": (91, 52), "chown": (92, -1), "fchown": (93, 55), "lchown": (94, -1), "openat": (257, 56),
    "mkdirat": (258, 34), "fchownat": (260, 54), "unlinkat": (263, 35), "renameat": (264, 38), "linkat": (265, 37),
    "symlinkat": (266, 36), "fchmodat": (268, 53), "utimensat": (280, 88), "renameat2": (316, 276),
    "copy_file_range": (326, 285), "clone3": (435, 435), "waitid": (247, 95),
}  # fmt: skip
COLUMN = {"x86_64": 0, "aarch64": 1}.get(platform.machine())
if COLUMN is None:
    sys.exit(f"tracer: knows x86_64 and aarch64, not {platform.machine()}")
HARMLESS_NUMBERS = {numbers[COLUMN] for numbers in HARMLESS.values()} - {-1}
NAME_OF = {numbers[COLUMN]: name for name, numbers in NAMES.items() if numbers[COLUMN] != -1}

# Which argument of a call is a path, for the record.
PATH_ARGUMENT = {
    "open": 0, "rename": 1, "mkdir": 0, "rmdir": 0, "unlink": 0, "symlink": 1, "chmod": 0, "chown": 0, "lchown": 0,
    "openat": 1, "mkdirat": 1, "fchownat": 1, "unlinkat": 1, "renameat": 3, "renameat2": 3, "symlinkat": 2,
    "fchmodat": 1, "truncate": 0, "link": 1, "linkat": 3, "utimensat": 1,
}  # fmt: skip
DESCRIPTOR_FIRST = {"write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate", "fchmod", "fchown", "flock"}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    ctypes.set_errno(0)
    result = libc.ptrace(request, pid, address, data)
    if result == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace request {request:#x}")
    return int(result)


def syscall_info(pid: int) -> tuple[int, int, tuple[int, ...]]:
    """Which stop this is, and on entry the call's number and arguments (struct ptrace_syscall_info)."""
    buffer = ctypes.create_string_buffer(88)
    ptrace(GET_SYSCALL_INFO, pid, len(buffer), ctypes.addressof(buffer))
    stop = buffer.raw[0]
    if stop != ENTRY:
        return stop, -1, ()
    number, *arguments = struct.unpack_from("=Q6Q", buffer.raw, 24)
    return stop, number, tuple(arguments)


def string_at(pid: int, address: int) -> str:
    try:
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(300).split(b"\0", 1)[0].decode(errors="replace")
    except (OSError, ValueError, OverflowError):
        return "?"


def changes_state(pid: int, number: int, arguments: tuple[int, ...]) -> bool:
    if number in HARMLESS_NUMBERS:
        return False
    name = NAME_OF.get(number, "")
    if name in ("open", "openat"):
        flags = arguments[1 if name == "open" else 2]
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    # What is only said, to a pipe or to the journal, is no state.
    return not (name in ("write", "writev") and _is_talk(pid, arguments[0]))


def _is_talk(pid: int, descriptor: int) -> bool:
    try:
        return not str(Path(f"/proc/{pid}/fd/{descriptor}").readlink()).startswith("/") or descriptor in (1, 2)
    except OSError:
        return False


def describe(pid: int, number: int, arguments: tuple[int, ...]) -> dict[str, object]:
    name = NAME_OF.get(number, str(number))
    path = ""
    if name in PATH_ARGUMENT:
        path = string_at(pid, arguments[PATH_ARGUMENT[name]])
    elif name in DESCRIPTOR_FIRST:
        try:
            path = str(Path(f"/proc/{pid}/fd/{arguments[0]}").readlink())
        except OSError:
            path = "?"
    return {"call": name, "path": path}


def start(program: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.execv(program[0], program)  # noqa: S606
        finally:
            os._exit(127)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        sys.exit(f"tracer: {program[0]} could not be started")
    ptrace(SETOPTIONS, pid, 0, O_TRACESYSGOOD | O_EXITKILL)
    return pid


def kill(pid: int) -> int:
    os.kill(pid, signal.SIGKILL)
    while True:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return KILLED


def trace(program: list[str], kill_at: int = 0, after: bool = False, record: str | None = None) -> int:
    pid = start(program)
    count = 0
    due = False
    journal = Path(record).open("w") if record else None  # noqa: SIM115
    delivered = 0
    while True:
        ptrace(SYSCALL, pid, 0, delivered)
        _, status = os.waitpid(pid, 0)
        delivered = 0
        if os.WIFEXITED(status):
            break
        if os.WIFSIGNALED(status):
            return 128 + os.WTERMSIG(status)
        stopped_by = os.WSTOPSIG(status)
        if stopped_by != SYSCALL_STOP:
            # The trap after execve is ptrace's own; every other signal is the program's.
            delivered = 0 if stopped_by in (signal.SIGTRAP, signal.SIGSTOP) else stopped_by
            continue
        stop, number, arguments = syscall_info(pid)
        if due and stop == EXIT:
            return kill(pid)
        if stop == ENTRY and changes_state(pid, number, arguments):
            count += 1
            if journal:
                print(json.dumps({"number": count, **describe(pid, number, arguments)}), file=journal)
            if count == kill_at:
                print(json.dumps({"number": count, **describe(pid, number, arguments)}), flush=True)
                if not after:
                    return kill(pid)
                due = True
    if journal:
        journal.close()
    return os.WEXITSTATUS(status)


def run_for(program: list[str], seconds: float) -> int:
    """Without tracing, so that it runs at its own pace."""
    pid = os.posix_spawn(program[0], program, os.environ)
    timer = threading.Timer(seconds, os.kill, (pid, signal.SIGKILL))
    began = time.monotonic()
    timer.start()
    _, status = os.waitpid(pid, 0)
    timer.cancel()
    killed = os.WIFSIGNALED(status)
    print(json.dumps({"seconds": round(time.monotonic() - began, 3), "killed": killed}), flush=True)
    return KILLED if killed else os.WEXITSTATUS(status)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--record")
    what.add_argument("--kill-at", type=int)
    what.add_argument("--kill-in", type=float)
    parser.add_argument("--after", action="store_true")
    parser.add_argument("program", nargs="+")
    given = parser.parse_args()
    if given.kill_in is not None:
        return run_for(given.program, given.kill_in)
    return trace(given.program, given.kill_at or 0, given.after, given.record)


if __name__ == "__main__":
    sys.exit(main())
