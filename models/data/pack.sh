#!/usr/bin/env bash
# Packs train and valid as Ogg Vorbis, 16 kHz mono, for a machine that is reached through a narrow door: about 1/8 of the size.
#
#   models/data/pack.sh [IN [OUT [QUALITY]]]     # data/denoise, data/denoise-pack, 1
#
# The model that is published is trained on the FLAC files; Vorbis takes away some of what lies below the speech. Test sets
# are not packed. Finished files are skipped.
set -euo pipefail

in=${1:-data/denoise}
out=${2:-data/denoise-pack}
quality=${3:-1}
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
echo "${#files[@]} files, $(du -sm --apparent-size "$out" | cut -f1) MiB"
