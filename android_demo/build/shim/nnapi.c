/* The desktop library of ONNX Runtime has no NNAPI, and the JNI library names this function; calling it is an error. */
#include <stddef.h>
#include <stdlib.h>

void *OrtSessionOptionsAppendExecutionProvider_Nnapi(void *options, unsigned flags) {
    (void)options, (void)flags;
    abort();
    return NULL;
}
