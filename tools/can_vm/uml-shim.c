/* User Mode Linux before 6.13 hands PTRACE_SETREGSET(NT_X86_XSTATE) a buffer of fixed size. Where
 * the processor's state is larger (AMX) the host answers EFAULT and the guest's init dies. This
 * ptrace() merges what UML has into the full state. Used with LD_PRELOAD. */

#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define GETREGSET 0x4204
#define SETREGSET 0x4205
#define XSTATE 0x202

static char state[65536] __attribute__((aligned(64)));

long ptrace(int request, ...)
{
	va_list arguments;
	long pid, address, data, result, word;

	va_start(arguments, request);
	pid = va_arg(arguments, long);
	address = va_arg(arguments, long);
	data = va_arg(arguments, long);
	va_end(arguments);
	pid = (int)pid;

	if (request == SETREGSET && address == XSTATE) {
		struct iovec *given = (struct iovec *)data;
		struct iovec full = { state, sizeof state };

		result = syscall(SYS_ptrace, GETREGSET, pid, address, &full);
		if (result == 0 && full.iov_len > given->iov_len) {
			memcpy(state, given->iov_base, given->iov_len);
			return syscall(SYS_ptrace, SETREGSET, pid, address, &full);
		}
	}
	if (request >= 1 && request <= 3) { /* PEEK*: the C library returns the word */
		result = syscall(SYS_ptrace, request, pid, address, &word);
		if (result < 0)
			return result;
		errno = 0;
		return word;
	}
	return syscall(SYS_ptrace, request, pid, address, data);
}
