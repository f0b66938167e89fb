/* Named by the JNI library, which takes nothing from it. */
int edge_mllm_empty_libm;
