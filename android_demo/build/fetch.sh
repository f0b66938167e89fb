#!/usr/bin/env bash
# Fetches ONNX Runtime for Android and the JVM by its integrity hash, into build/android of the checkout.
#
# The npm package com.github.asus4.onnxruntime (MIT) carries onnxruntime.aar, the Java classes with their native
# libraries for four Android ABIs, and a library for desktop Linux. Version 0.4.8 has ONNX Runtime 1.26.0, which has no
# telemetry code. The classes' own native library is built for Android's C library: a shim (shim/) lets it run on glibc.
set -euo pipefail
cd "$(dirname "$0")/../.."

VERSION=1.26.0
PACKAGE=com.github.asus4.onnxruntime@0.4.8
SHA512=pHJhRgOGAa2ZA9FzM0/UYY5cGmp1ZX3R+4zQpl0zjsCcr5RYSUyQGihLgRhaOxc4WAXUYD/B1UKHll8PKJjMIw==
OUT=$PWD/build/android/onnxruntime-$VERSION
SHIM=$PWD/android_demo/build/shim

if [ -f "$OUT/.done" ]; then
    exit 0
fi
for tool in npm python3 cc; do
    if ! command -v "$tool" >/dev/null; then
        echo "fetch.sh: $tool is not installed" >&2
        exit 1
    fi
done
mkdir -p "$PWD/build/android"
WORK=$(mktemp -d "$PWD/build/android/fetch.XXXXXX")
trap 'rm -rf "$WORK"' EXIT

(cd "$WORK" && npm pack --silent "$PACKAGE" >/dev/null)
FOUND=$(python3 - "$WORK"/*.tgz <<'PY'
import base64, hashlib, pathlib, sys
print(base64.b64encode(hashlib.sha512(pathlib.Path(sys.argv[1]).read_bytes()).digest()).decode())
PY
)
if [ "$FOUND" != "$SHA512" ]; then
    echo "fetch.sh: $PACKAGE has another hash than it should: sha512-$FOUND" >&2
    exit 1
fi

tar -xzf "$WORK"/*.tgz -C "$WORK" package/Plugins/Android/onnxruntime.aar package/Plugins/Linux/x64/libonnxruntime.so
mkdir -p "$WORK/aar" "$WORK/out/jvm"
python3 -m zipfile -e "$WORK/package/Plugins/Android/onnxruntime.aar" "$WORK/aar"
cp "$WORK/aar/classes.jar" "$WORK/out/onnxruntime.jar"
cp -r "$WORK/aar/jni/arm64-v8a" "$WORK/out/arm64-v8a"
cp "$WORK/aar/jni/x86_64/libonnxruntime4j_jni.so" "$WORK/package/Plugins/Linux/x64/libonnxruntime.so" "$WORK/out/jvm/"

FLAGS="-shared -fPIC -O1 -fno-builtin -nostdlib"
cc $FLAGS -Wl,--version-script="$SHIM/libc.map" -Wl,-soname,libc.so -o "$WORK/out/jvm/libc.so" "$SHIM/libc.c" -l:libc.so.6
cc $FLAGS -Wl,--version-script="$SHIM/libc.map" -Wl,-soname,libdl.so -o "$WORK/out/jvm/libdl.so" "$SHIM/libdl.c"
cc $FLAGS -Wl,-soname,libm.so -o "$WORK/out/jvm/libm.so" "$SHIM/libm.c"
cc $FLAGS -Wl,--version-script="$SHIM/ort.map" -Wl,-soname,libnnapi.so -o "$WORK/out/jvm/libnnapi.so" "$SHIM/nnapi.c" -l:libc.so.6
# The same version for Python, which tests compare with: between versions int8 towers differ.
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
    --target "$WORK/out/python" -r android_demo/build/onnxruntime.txt
touch "$WORK/out/.done"
rm -rf "$OUT"
mv "$WORK/out" "$OUT"
