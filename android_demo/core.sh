#!/usr/bin/env bash
# The phone's code on this machine's JVM:  core.sh run|pixels|ids -m BUNDLE -i IMAGE [-o FILE.npy] PROMPT
# core.sh page [--port N] shows the app's page in a browser of this machine.
# It is compiled when a source is newer. ONNX Runtime must have been fetched: android_demo/build/fetch.sh
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(dirname "$HERE")
ORT=$ROOT/build/android/onnxruntime-1.26.0
"$HERE/core/compile.sh"
export LD_LIBRARY_PATH=$ORT/jvm LD_PRELOAD=$ORT/jvm/libnnapi.so
exec java -Xss4m -XX:+UseSerialGC -XX:TieredStopAtLevel=4 ${EDGE_MLLM_JAVA:-} \
    -Donnxruntime.native.path="$ORT/jvm" -Dedgemllm.starter="$ROOT/edge_mllm/starter.edge" \
    -Dedgemllm.page="$HERE/app/assets/page" \
    -cp "${EDGE_MLLM_CLASSES:-$ROOT/build/android/classes:$ORT/onnxruntime.jar}" org.edgemllm.cli.Main "$@"
