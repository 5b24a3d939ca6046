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
#include <stddef.h>
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

/*
 * The one who initialises publishes, and must do so before the standard library marks the value as
 * there: inside the closure. That is a fat pointer, a `&mut dyn FnMut(&OnceState)`, and gets a copy
 * of its table with another function to call.
 */
enum { CALL_MUT = 4, TABLE_WORDS = 5 };

struct initialiser {
    void *closure;
    void (*call)(void *closure, void *state);
    void *once;
};

static void initialise(void *closure, void *state) {
    struct initialiser *initialiser = closure;
    initialiser->call(initialiser->closure, state);
    __tsan_release(initialiser->once);
}

void REAL(ONCE_CALL)(void *once, bool ignore_poison, void *closure, void *const *table);
void WRAP(ONCE_CALL)(void *once, bool ignore_poison, void *closure, void *const *table) {
    struct initialiser initialiser = {
        closure, (void (*)(void *, void *))table[CALL_MUT], once};
    void *wrapped_table[TABLE_WORDS];
    for (int word = 0; word < CALL_MUT; word++) {
        wrapped_table[word] = table[word];
    }
    wrapped_table[CALL_MUT] = (void *)initialise;
    REAL(ONCE_CALL)(once, ignore_poison, &initialiser, wrapped_table);
    __tsan_acquire(once);
}

/* The end of a scoped thread is published through a counter, one of the three words of the scope. */
void REAL(SCOPED_THREAD_END)(void *scope, bool panicked);
void WRAP(SCOPED_THREAD_END)(void *scope, bool panicked) {
    for (uintptr_t word = 0; word < 3; word++) {
        __tsan_release((uint8_t *)scope + word * sizeof(uintptr_t));
    }
    REAL(SCOPED_THREAD_END)(scope, panicked);
}

/*
 * The last owner of an `Arc` gives up its share with release order, sees that it was the last, and synchronises with the
 * others through a fence. The sanitizer models no fences: here one takes what was released at the count that the thread
 * lowered before it.
 */
enum { ACQUIRE = 2 };

static _Thread_local void *lowered;

uint64_t __real___tsan_atomic64_fetch_sub(volatile uint64_t *count, uint64_t by, int order);
uint64_t __wrap___tsan_atomic64_fetch_sub(volatile uint64_t *count, uint64_t by, int order) {
    uint64_t before = __real___tsan_atomic64_fetch_sub(count, by, order);
    lowered = (void *)count;
    return before;
}

void __real___tsan_atomic_thread_fence(int order);
void __wrap___tsan_atomic_thread_fence(int order) {
    __real___tsan_atomic_thread_fence(order);
    if (order == ACQUIRE && lowered != NULL) {
        __tsan_acquire(lowered);
        lowered = NULL;
    }
}
