#!/usr/bin/env bash
# Packs train and valid as Ogg Vorbis, 16 kHz mono, for a machine that is reached through a narrow door.
#
#   models/data/pack.sh [IN [OUT [QUALITY]]]     # data/denoise, data/denoise-pack, 0
#
# OUT holds the same folders, and three archives, each under 50 MiB at quality 0: part-1.tar.xz is enough to train by itself
# (all noise, valid, the synthetic voices), part-2.tar.xz adds the recorded speech but for fillets, part-3.tar.xz that. xz takes
# away the 4 KB of code books that each Vorbis file repeats. Unpack all into one folder: tar -xJf.
#
# The bundled model was trained on these; Vorbis takes away some of what lies below the speech. Test sets
# are not packed. Finished files are skipped.
set -euo pipefail

in=${1:-data/denoise}
out=${2:-data/denoise-pack}
quality=${3:-0}
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

tar_of() { # NAME, then find's further conditions
    local name=$1
    shift
    (cd "$out" && find train valid -name '*.ogg' "$@" | LC_ALL=C sort |
        tar --owner=0 --group=0 --mtime=@0 -cf - -T - | xz -T1 -5 --lzma2=dict=64MiB >"$name.part" && mv "$name.part" "$name")
    echo "$name: $(du -sm --apparent-size "$out/$name" | cut -f1) MiB"
}
[ -e "$out/part-1.tar.xz" ] || tar_of part-1.tar.xz '(' -path '*/noise/*' -o -path 'valid/*' -o -name 'kokoro*' ')'
[ -e "$out/part-2.tar.xz" ] || tar_of part-2.tar.xz -path 'train/clean/*' ! -name 'fillets-*' ! -name 'kokoro*'
[ -e "$out/part-3.tar.xz" ] || tar_of part-3.tar.xz -path 'train/clean/*' -name 'fillets-*'
ls -sh "$out"/part-*.tar.xz
