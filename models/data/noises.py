"""More noise to train on: effects and surroundings of ten free games and programs, from Debian's packages.

Each source is a folder below /usr/share and two patterns over the file's path there: what is taken, and what of it is left
out. Left out are music and single voices (cries, orders, laughter); crowds stay, for a crowd is noise. None of it is in valid
or test: `overlap.py` compares every clip with those two, and the four that were above 0.5 by it are left out.
"""

import re
from dataclasses import dataclass

# Single voices and their likes, in the names that these packages use.
VOICES = (r"die|death|laugh|groan|wail|ugg?h?\b|scream|shriek|[_-]ack|select|critdie|_ment|merchant|warcry|lose|choir|voxy|burp|wee\.|lobby_freshmen"
          r"|(human|elf|orc|goblin|dwarf|troll|ogre|naga|mermaid|mermen|lich|ghoul|wolf|yeti|wose|skeleton|zombie|male|drake|gryphon|tusker|horse|big|small|old)[_-]hit")


@dataclass(frozen=True)
class Source:
    package: str
    folder: str
    take: str = r"."
    leave: str = r"(?!)"


SOURCES = (
    Source("megaglest-data", "games/megaglest", r"^tilesets/|water_sounds|commondata/sounds/(anvil|arrow_hit|air_|catapult|dragon_hit|eagle_hit|golem"
           r"|horseman_walk|orni_|tech_|tower|defense_tower|worker_(build|harvest|mine)|technician_build|summoner_(hit|summon))"),
    Source("lincity-ng-data", "games/lincity-ng/sounds", leave="rocket2"),
    Source("wesnoth-1.16-data", "games/wesnoth/1.16/data/core/sounds", leave="fanfare|horn-signals|heal|magic-holy"),
    Source("searchandrescue-data", "games/searchandrescue/sounds"),
    Source("endless-sky-data", "games/endless-sky/sounds"),
    Source("flare-game", "games/flare/mods", r"/soundfx/", leave="npcs|male_|female|minotaur"),
    Source("widelands-data", "games/widelands/data", r"^(sound|world)/", leave="good_morning|lobby_|message|under_attack|military"),
    Source("unknown-horizons", "unknown-horizons/content/audio/sounds", leave="stonemason"),
    Source("supertuxkart-data", "games/supertuxkart/data", r"^(sfx|tracks|library)/", leave="fanfare|flute|victory|track_intro|airport|gp_end|enterprise|introcutscene|goo"),
    Source("sonic-pi-samples", "sonic-pi/samples", leave="guit|piano|bass_"),
)


def family(stem):
    """`Blacksmith1` → `blacksmith`, `sword-miss-2` → `sword`: pieces are joined within it."""
    return re.match(r"[a-z]+", re.sub(r"[^a-z]+", "-", stem.lower()).strip("-") or "x").group(0)


def find(root):
    """Yields (source, family, name, path), sorted."""
    for s in SOURCES:
        base = root / "usr/share" / s.folder
        if not base.is_dir():
            raise SystemExit(f"corpus: {base} is missing; expected package {s.package} unpacked there")
        for p in sorted(base.rglob("*")):
            rel = p.relative_to(base).as_posix()
            if p.suffix.lower() in (".ogg", ".wav", ".flac") and "music" not in rel and re.search(s.take, rel):
                if not re.search(s.leave, rel, re.I) and not re.search(VOICES, p.name, re.I):
                    yield s.package, family(p.stem), p.relative_to(base).with_suffix("").as_posix().replace("/", "-").lower(), p
