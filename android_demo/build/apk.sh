#!/usr/bin/env bash
# Builds a signed APK without Google's tools: aapt2, zipalign, apksigner and ProGuard from Debian 12, the compiler to
# Android's bytecode (dx) and Android's classes from Debian 11, ONNX Runtime from fetch.sh. Packages of Debian 11 are
# checked by their hashes. The APK holds the starter and libraries for arm64. Nobody has run it on a phone yet.
set -euo pipefail
cd "$(dirname "$0")/../.."
HERE=$PWD/android_demo
OUT=$PWD/build/android
ORT=$OUT/onnxruntime-1.26.0
TOOLS=$OUT/tools
APK=$HERE/build/edge-mllm-demo.apk
ASM=/usr/share/java/asm.jar

for tool in aapt2 zipalign apksigner proguard javac keytool; do
    if ! command -v "$tool" >/dev/null; then
        echo "apk.sh: $tool is not installed; as root type: apt-get install aapt apksigner zipalign libasm-java" \
            "proguard-cli openjdk-17-jdk-headless" >&2
        exit 1
    fi
done
"$HERE/build/fetch.sh"
"$HERE/core/compile.sh"

# Two packages of Debian 11, through apt with lists of its own.
if [ ! -f "$TOOLS/.done" ]; then
    ROOT=$(mktemp -d "$OUT/debian.XXXXXX")
    chmod 755 "$ROOT"
    mkdir -p "$ROOT/lists/partial" "$ROOT/cache/archives/partial"
    : >"$ROOT/status"
    SITE=$(apt-get indextargets --format '$(SITE)' | sort -u | head -1)
    echo "deb [arch=$(dpkg --print-architecture)] $SITE bullseye main" >"$ROOT/sources.list"
    OPTIONS="-o Dir::Etc::sourcelist=$ROOT/sources.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$ROOT/lists
        -o Dir::State::status=$ROOT/status -o Dir::Cache=$ROOT/cache -o APT::Sandbox::User=root"
    (cd "$ROOT" && apt-get $OPTIONS update -qq && apt-get $OPTIONS download -qq dalvik-exchange libandroid-23-java)
    (cd "$ROOT" && sha256sum --check --quiet "$HERE/build/debian11.sha256")
    for package in "$ROOT"/*.deb; do
        dpkg-deb -x "$package" "$ROOT/unpacked"
    done
    rm -rf "$TOOLS" && mkdir "$TOOLS"
    cp "$ROOT/unpacked/usr/share/java/com.android.dx-10.0.0.jar" "$TOOLS/dx.jar"
    cp "$ROOT/unpacked/usr/share/java/com.android.android-23.jar" "$TOOLS/android.jar"
    rm -rf "$ROOT"
    touch "$TOOLS/.done"
fi

WORK=$(mktemp -d "$OUT/apk.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
ANDROID=$TOOLS/android.jar

# ONNX Runtime's classes at Java 8's level, their lambdas as classes: phones before Android 8 lack what lambdas call.
mkdir "$WORK/downgrade"
javac -cp "$ASM" -d "$WORK/downgrade" "$HERE/build/Downgrade.java"
java -cp "$ASM:$WORK/downgrade" Downgrade "$ORT/onnxruntime.jar" "$WORK/onnxruntime-8.jar"
proguard -injars "$WORK/onnxruntime-8.jar" -outjars "$WORK/onnxruntime-7.jar" -libraryjars "$ANDROID" -target 1.7 \
    -dontshrink -dontoptimize -dontobfuscate -dontwarn -dontnote -keepattributes '*' >"$WORK/proguard.log"

# Resources, then code, then libraries.
aapt2 compile --dir "$HERE/app/res" -o "$WORK/resources.zip"
mkdir -p "$WORK/assets/starter.edge" "$WORK/classes" "$WORK/dex/lib/arm64-v8a"
cp -r "$HERE/app/assets/page" "$WORK/assets/page"
for file in bundle.json chat_template.jinja decoder.onnx decoder.onnx.data embeddings.npy tokenizer.json vision.onnx; do
    cp "$PWD/edge_mllm/starter.edge/$file" "$WORK/assets/starter.edge/"
done
aapt2 link -I "$ANDROID" --manifest "$HERE/app/AndroidManifest.xml" -A "$WORK/assets" -o "$WORK/plain.apk" \
    "$WORK/resources.zip"
find "$HERE/app/src" -name '*.java' -print0 | xargs -0 javac -source 8 -target 8 -Xlint:-options -encoding UTF-8 \
    -bootclasspath "$ANDROID" -cp "$OUT/edge-mllm-core.jar:$ORT/onnxruntime.jar" -d "$WORK/classes" 2>"$WORK/javac.log" \
    || { cat "$WORK/javac.log" >&2; exit 1; }
java -cp "$TOOLS/dx.jar" com.android.dx.command.Main --dex --min-sdk-version=26 --output="$WORK/dex/classes.dex" \
    "$WORK/classes" "$OUT/edge-mllm-core.jar" "$WORK/onnxruntime-7.jar"
cp "$ORT"/arm64-v8a/*.so "$WORK/dex/lib/arm64-v8a/"
# Libraries are stored, not compressed, at multiples of 16 KiB, so that the system maps them from the APK.
(cd "$WORK/dex" && python3 - "$WORK/plain.apk" <<'PY'
import pathlib, sys, zipfile
with zipfile.ZipFile(sys.argv[1], "a") as apk:
    apk.write("classes.dex", compress_type=zipfile.ZIP_DEFLATED)
PY
)
zipalign -p -f 4 "$WORK/plain.apk" "$WORK/aligned.apk"
# After zipalign, which knows pages of 4 KiB only.
(cd "$WORK/dex" && python3 - "$WORK/aligned.apk" <<'PY'
import pathlib, sys, zipfile
PAGE = 16384
with zipfile.ZipFile(sys.argv[1], "a") as apk:
    for library in sorted(pathlib.Path("lib").rglob("*.so")):
        entry = zipfile.ZipInfo.from_file(library)
        begin = apk.fp.seek(0, 2) if apk.start_dir is None else apk.start_dir
        padding = -(begin + 30 + len(entry.filename)) % PAGE
        padding += PAGE if padding < 4 else 0
        entry.extra = b"\xff\xff" + (padding - 4).to_bytes(2, "little") + bytes(padding - 4)
        apk.writestr(entry, library.read_bytes(), zipfile.ZIP_STORED)
PY
)

# A key of this checkout: other builds cannot update this one.
KEY=$OUT/debug.keystore
if [ ! -f "$KEY" ]; then
    keytool -genkeypair -keystore "$KEY" -storepass android -keypass android -alias demo -keyalg RSA -keysize 2048 \
        -validity 10000 -dname "CN=edge-mllm demo" 2>/dev/null
fi
apksigner sign --ks "$KEY" --ks-pass pass:android --min-sdk-version 26 --v1-signing-enabled false \
    --v2-signing-enabled true --v3-signing-enabled true --out "$WORK/signed.apk" "$WORK/aligned.apk"
mv "$WORK/signed.apk" "$APK"
echo "$APK: $(($(stat -c %s "$APK") / 1000000)) MB"
