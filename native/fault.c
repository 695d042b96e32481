/*
 * The SIGBUS guard. Whoever shares a file with us can truncate it, and an access to a page that is gone is a SIGBUS, which
 * would let a guest or a VMM kill the daemon. The handler puts a zero page there instead and counts it.
 *
 * The table is the process's, because the signal is: regions of all environments are in it. Each entry is a sequence lock,
 * so that the handler can read it in any thread, at any time, without waiting. An entry whose writer is at work is skipped:
 * it cannot be the one that the faulting access belongs to, since a region is guarded before and after its whole use.
 */
#include "addon.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define GUARDS_MAX 16384

struct guard {
  _Atomic uint32_t sequence; /* Odd while the entry changes. */
  _Atomic uintptr_t start;   /* 0: free. */
  _Atomic uintptr_t end;
  _Atomic size_t page;
  _Atomic uint64_t faults;
};

static struct guard guards[GUARDS_MAX];
static _Atomic int guards_used; /* Entries at and above it were never used. */
static pthread_mutex_t guards_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t handler_once = PTHREAD_ONCE_INIT;
static struct sigaction previous_action;

/* Fills the page that `address` is on, if it is a guarded one. Only async-signal-safe work: loads, and one mmap. */
static bool fill_page(uintptr_t address) {
  int used = atomic_load_explicit(&guards_used, memory_order_acquire);
  for (int index = 0; index < used; index++) {
    struct guard *guard = &guards[index];
    uint32_t before = atomic_load_explicit(&guard->sequence, memory_order_acquire);
    uintptr_t start = atomic_load_explicit(&guard->start, memory_order_relaxed);
    uintptr_t end = atomic_load_explicit(&guard->end, memory_order_relaxed);
    size_t page = atomic_load_explicit(&guard->page, memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    if (before % 2 != 0 || before != atomic_load_explicit(&guard->sequence, memory_order_relaxed)) continue;
    if (address < start || address >= end) continue;
    void *place = (void *)(address - address % page);
    if (mmap(place, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) return false;
    atomic_fetch_add_explicit(&guard->faults, 1, memory_order_relaxed);
    return true;
  }
  return false;
}

static void pass_on(int number, siginfo_t *info, void *context) {
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(number, info, context);
  } else if (previous_action.sa_handler == SIG_IGN && info->si_code <= 0) {
    return; /* Sent by a process and ignored. A real fault cannot be ignored: it would fault again for ever. */
  } else if (previous_action.sa_handler == SIG_DFL || previous_action.sa_handler == SIG_IGN) {
    /* Blocked until this handler returns, then deadly, with a core dump, as without the guard. */
    signal(number, SIG_DFL);
    raise(number);
  } else {
    previous_action.sa_handler(number);
  }
}

static void on_fault(int number, siginfo_t *info, void *context) {
  int saved = errno;
  /* si_code > 0: the kernel says that an access failed; otherwise a process sent the signal and si_addr means nothing. */
  if (info->si_code <= 0 || !fill_page((uintptr_t)info->si_addr)) pass_on(number, info, context);
  errno = saved;
}

static void install_handler(void) {
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &previous_action);
}

/* The mutex is held. The odd number must be seen before the fields change, the even one after. */
static void guard_write(struct guard *guard, uintptr_t start, uintptr_t end, size_t page) {
  uint32_t sequence = atomic_load_explicit(&guard->sequence, memory_order_relaxed);
  atomic_store_explicit(&guard->sequence, sequence + 1, memory_order_relaxed);
  atomic_thread_fence(memory_order_release);
  atomic_store_explicit(&guard->start, start, memory_order_relaxed);
  atomic_store_explicit(&guard->end, end, memory_order_relaxed);
  atomic_store_explicit(&guard->page, page, memory_order_relaxed);
  atomic_store_explicit(&guard->sequence, sequence + 2, memory_order_release);
}

int fault_guard_add(uint8_t *base, uint64_t length, size_t page) {
  pthread_once(&handler_once, install_handler);
  pthread_mutex_lock(&guards_mutex);
  int used = atomic_load_explicit(&guards_used, memory_order_relaxed);
  int index = 0;
  while (index < used && atomic_load_explicit(&guards[index].start, memory_order_relaxed) != 0) index++;
  if (index < GUARDS_MAX) {
    atomic_store_explicit(&guards[index].faults, 0, memory_order_relaxed);
    guard_write(&guards[index], (uintptr_t)base, (uintptr_t)base + length, page);
    if (index == used) atomic_store_explicit(&guards_used, used + 1, memory_order_release);
  }
  pthread_mutex_unlock(&guards_mutex);
  return index < GUARDS_MAX ? index : -ENOSPC;
}

void fault_guard_remove(int guard) {
  pthread_mutex_lock(&guards_mutex);
  guard_write(&guards[guard], 0, 0, 1);
  pthread_mutex_unlock(&guards_mutex);
}

uint64_t fault_guard_count(int guard) { return atomic_load_explicit(&guards[guard].faults, memory_order_relaxed); }
