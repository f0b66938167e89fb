/* Named by the JNI library; it closes nothing before the process ends. */
int dlclose(void *library) {
    (void)library;
    return 0;
}
