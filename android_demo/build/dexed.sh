#!/usr/bin/env bash
# Turns the APK's bytecode back into a jar (enjarify of Debian), so that core.sh can run the code that ships:
#   android_demo/build/apk.sh && android_demo/build/dexed.sh && EDGE_MLLM_CLASSES=build/android/dexed android_demo/core.sh ...
set -euo pipefail
cd "$(dirname "$0")/../.."
OUT=$PWD/build/android
APK=$PWD/android_demo/build/edge-mllm-demo.apk
if ! command -v enjarify >/dev/null; then
    echo "dexed.sh: enjarify is not installed; as root type: apt-get install enjarify" >&2
    exit 1
fi
WORK=$(mktemp -d "$OUT/dexed.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
(cd "$WORK" && PATH=/usr/bin:/bin PYTHONPATH= enjarify -o all.jar "$APK" >log && mkdir classes \
    && cd classes && jar -xf ../all.jar)
rm -rf "$WORK/classes/org/edgemllm/demo"
cp -r "$OUT/classes/org/edgemllm/cli" "$WORK/classes/org/edgemllm/" # the command line is not in the APK
rm -rf "$OUT/dexed" && mv "$WORK/classes" "$OUT/dexed"
