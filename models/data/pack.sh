#!/usr/bin/env bash
# Packs train and valid as Ogg Vorbis, 16 kHz mono, for a machine that is reached through a narrow door.
#
#   models/data/pack.sh [IN [OUT [QUALITY [MIB]]]]     # data/denoise, data/denoise-pack, 0, 48
#   cat data/denoise-pack/pack.tar.xz.* | tar -xJ      # there: train and valid
#
# OUT holds the same folders, and them without fillets-cs (which the recipes leave out) as one archive in pieces of MIB. xz takes
# away the 4 KB of code books that each Vorbis file repeats.
#
# The bundled model was trained on such; Vorbis takes away some of what lies below the speech. Test sets
# are not packed. Finished files are skipped.
set -euo pipefail

in=${1:-data/denoise}
out=${2:-data/denoise-pack}
quality=${3:-0}
mib=${4:-48}
[ -e "$in/manifest.tsv" ] || { echo "pack: $in/manifest.tsv is missing; expected a corpus made by prepare.sh" >&2; exit 2; }
command -v ffmpeg >/dev/null || { echo "pack: ffmpeg is missing" >&2; exit 2; }

# One ffmpeg call for 64 files: its start costs more than a clip.
pack_batch() {
    local args=() maps=() k=0 f o
    for f in "$@"; do
        o="$out/${f%.flac}.ogg"
        [ -s "$o" ] && continue
        mkdir -p "$(dirname "$o")"
        args+=(-i "$in/$f")
        maps+=(-map "$k:a" -map_metadata -1 -bitexact -c:a libvorbis -q:a "$quality" "$o")
        k=$((k + 1))
    done
    [ $k -eq 0 ] || ffmpeg -nostdin -v error -y "${args[@]}" "${maps[@]}"
}

mapfile -t files < <(cd "$in" && find train valid -name '*.flac' | LC_ALL=C sort)
for ((i = 0; i < ${#files[@]}; i += 64)); do
    pack_batch "${files[@]:i:64}"
done
cp "$in/manifest.tsv" "$out/manifest.tsv"

rm -f "$out"/pack.tar.xz.*
(cd "$out" && find train valid -name '*.ogg' ! -name 'fillets-cs*' | LC_ALL=C sort |
    tar --owner=0 --group=0 --mtime=@0 -cf - -T - | xz -T1 -5 --lzma2=dict=64MiB | split -d -b "${mib}M" - pack.tar.xz.)
ls -sh "$out"/pack.tar.xz.*
