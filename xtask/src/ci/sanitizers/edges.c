/*
 * ThreadSanitizer learns what happens before what from instrumented code. The standard library that
 * ships with the toolchain is not instrumented: it sees a lock given back, which is inlined into our
 * code, but not a contended lock taken, which is not. Each function here stands between our code and
 * one such function of the standard library (through the linker's --wrap) and tells the sanitizer
 * what that function guarantees.
 *
 * Each NAME below is defined by the compiler's command line as the symbol in the standard library.
 */
#include <stdbool.h>
#include <stdint.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

#define PASTE_EXPANDED(a, b) a##b
#define PASTE(a, b) PASTE_EXPANDED(a, b)
#define REAL(name) PASTE(__real_, name)
#define WRAP(name) PASTE(__wrap_, name)

#define CONTENDED_LOCK(name)                                                                       \
    void REAL(name)(void *lock);                                                                   \
    void WRAP(name)(void *lock) {                                                                  \
        REAL(name)(lock);                                                                          \
        __tsan_acquire(lock);                                                                      \
    }

CONTENDED_LOCK(MUTEX_LOCK)
CONTENDED_LOCK(RWLOCK_READ)
CONTENDED_LOCK(RWLOCK_WRITE)

/* A wait gives the mutex back and takes it again. */
void REAL(CONDVAR_WAIT)(void *condvar, void *mutex);
void WRAP(CONDVAR_WAIT)(void *condvar, void *mutex) {
    __tsan_release(mutex);
    REAL(CONDVAR_WAIT)(condvar, mutex);
    __tsan_acquire(mutex);
}

/* A duration is passed as seconds and nanoseconds. */
bool REAL(CONDVAR_WAIT_TIMEOUT)(void *condvar, void *mutex, uint64_t seconds, uint32_t nanos);
bool WRAP(CONDVAR_WAIT_TIMEOUT)(void *condvar, void *mutex, uint64_t seconds, uint32_t nanos) {
    __tsan_release(mutex);
    bool notified = REAL(CONDVAR_WAIT_TIMEOUT)(condvar, mutex, seconds, nanos);
    __tsan_acquire(mutex);
    return notified;
}

/* The one who initialises publishes; the others wait for it. The closure is a fat pointer. */
void REAL(ONCE_CALL)(void *once, bool ignore_poison, void *closure, void *vtable);
void WRAP(ONCE_CALL)(void *once, bool ignore_poison, void *closure, void *vtable) {
    REAL(ONCE_CALL)(once, ignore_poison, closure, vtable);
    __tsan_acquire(once);
    __tsan_release(once);
}

/* The end of a scoped thread is published through a counter, one of the three words of the scope. */
void REAL(SCOPED_THREAD_END)(void *scope, bool panicked);
void WRAP(SCOPED_THREAD_END)(void *scope, bool panicked) {
    for (uintptr_t word = 0; word < 3; word++) {
        __tsan_release((uint8_t *)scope + word * sizeof(uintptr_t));
    }
    REAL(SCOPED_THREAD_END)(scope, panicked);
}
