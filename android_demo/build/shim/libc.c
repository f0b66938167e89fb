/* The nine functions of Android's C library that ONNX Runtime's JNI library calls, for a process that runs on glibc.
   They carry Android's version name (libc.map), so nothing else in the process can take them for glibc's own. */
#include <stddef.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t size);
extern void __libc_free(void *block);
extern void *__libc_realloc(void *block, size_t size);
extern void *__mempcpy(void *to, const void *from, size_t size);

void *malloc(size_t size) { return __libc_malloc(size); }
void free(void *block) { __libc_free(block); }
void *realloc(void *block, size_t size) { return __libc_realloc(block, size); }

void *memcpy(void *to, const void *from, size_t size) {
    __mempcpy(to, from, size);
    return to;
}

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length]) {
        __asm__ volatile(""); /* or the compiler makes a call of strlen of it */
        length++;
    }
    return length;
}

void __stack_chk_fail(void) { abort(); }

/* The library stays until the process ends, and the process does not fork with it. */
int __cxa_atexit(void (*function)(void *), void *argument, void *library) {
    (void)function, (void)argument, (void)library;
    return 0;
}
void __cxa_finalize(void *library) { (void)library; }
int __register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void), void *library) {
    (void)before, (void)parent, (void)child, (void)library;
    return 0;
}
