#!/usr/bin/env bash
# Compiles core at Java 8's level into build/android/classes when a source is newer, and its jar without the command
# line, edge-mllm-core.jar, for other apps.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
OUT=$(dirname "$(dirname "$HERE")")/build/android
ORT=$OUT/onnxruntime-1.26.0/onnxruntime.jar
if [ ! -f "$ORT" ]; then
    echo "core: ONNX Runtime is not here; type: android_demo/build/fetch.sh" >&2
    exit 1
fi
if ! command -v javac >/dev/null; then
    echo "core: javac is not installed" >&2
    exit 1
fi
exec 9>"$OUT/compile.lock" && flock 9 # tests may run side by side
if [ -f "$OUT/classes/.done" ] && [ -z "$(find "$HERE/src" -newer "$OUT/classes/.done" -print -quit)" ]; then
    exit 0
fi
WORK=$(mktemp -d "$OUT/classes.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
find "$HERE/src" -name '*.java' -print0 | xargs -0 javac --release 8 -Xlint:all,-options -Werror -encoding UTF-8 \
    -cp "$ORT" -d "$WORK"
touch "$WORK/.done"
(cd "$WORK" && find org -name '*.class' -not -path 'org/edgemllm/cli/*' >"$OUT/core.$$.list" \
    && jar --create --file "$OUT/edge-mllm-core.$$.jar" "@$OUT/core.$$.list")
rm "$OUT/core.$$.list"
mv "$OUT/edge-mllm-core.$$.jar" "$OUT/edge-mllm-core.jar"
chmod 755 "$WORK"
rm -rf "$OUT/classes"
mv "$WORK" "$OUT/classes"
