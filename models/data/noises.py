"""More noise to train on: effects, surroundings and music of some sixty free games and programs, from Debian's packages.

Each source is a folder below /usr/share and two patterns over the file's path there: what is taken, and what of it is left
out. Left out are single voices (cries, orders, laughter); crowds stay, for a crowd is noise. Of a piece of music a stretch of
twelve seconds is taken. None of it is in test: `overlap.py` compares every clip with valid and test; the two dozen short or
tonal ones that were above 0.5 by it are left out. The noise of the packages of `HELD` is never trained on: it is a second set to judge generality by.
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
    music: bool = False


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
    Source("ardentryst", "games/ardentryst/Sounds", leave="nyx|pyr|monstersounds|msg|voi_"),
    Source("bucklespring-data", "buckle/wav"),
    Source("bzflag-data", "games/bzflag", leave="message"),
    Source("caveexpress-data", "games/caveexpress/sounds", leave="npc"),
    Source("colobot-common-sounds", "games/colobot/sounds"),
    Source("crossfire-client", "games/crossfire-client/sounds", leave="puke|su-fanf"),
    Source("csoundqt-examples", "csoundqt", r"seashore|stairwell|bounce|mug|808", leave="stairwell[lr]"),
    Source("cube2-data", "games/cube2/packages/sounds/q009", leave="outofammo"),
    Source("emacspeak", "emacs/site-lisp/emacspeak/sounds/classic"),
    Source("enigma-data", "games/enigma/soundsets"),
    Source("epiphany-data", "epiphany/sfx", leave="epiphany_"),
    Source("etw-data", "games/etw", r"^(crowd|arcadesnd|snd)/", leave="ouch|hallelujah|letsgo|repop|boou"),
    Source("extremetuxracer-data", "games/etr/sounds"),
    Source("freeciv-data", "games/freeciv/stdsounds", leave="wakeup"),
    Source("freecol", "games/freecol", r"resources/sound/(attack|event)|base/resources/sound", leave="anthem"),
    Source("freedroid-data", "games/freedroid/sound", leave="bleep_music"),
    Source("freedroidrpg-data", "freedroidrpg/data/sound/effects", leave="voice|comments"),
    Source("freegish-data", "games/freegish/sound", leave="chainbreak"),
    Source("freeorion-data", "games/freeorion/default/data/sound", leave="artificial|newturn"),
    Source("hedgewars-data", "games/hedgewars/Data/Sounds", leave="voices|hellish|yoohoo|kiss|egg"),
    Source("heroes-sound-effects", "games/heroes", leave="ho_yeh"),
    Source("hydrogen-drumkits", "hydrogen/data/drumkits", r"forzeestereo|gimme a hand|circafrique|rumpf|varibreaks|audiophob", leave="tambourine|hihatfoot|stick"),
    Source("hydrogen-drumkits-effects", "hydrogen/data/drumkits", r"guitarstrums.*_01\."),
    Source("krank", "games/krank/sounds"),
    Source("lmms-common", "lmms/samples", leave="waveforms|shapes|breath"),
    Source("marsshooter-data", "games/marsshooter/audio/toon"),
    Source("mazeofgalious-data", "games/mazeofgalious/sound", leave="/(ah|die|hit|sword)|song"),
    Source("micropolis-data", "games/micropolis/res/sounds", leave="aaah|skyline|traffic.*voice"),
    Source("minetest-data", "games/minetest/games/minetest_game"),
    Source("minetest-mod-nether", "games/minetest/mods/nether"),
    Source("mirrormagic-data", "games/mirrormagic/sounds", leave="autsch|halloffame"),
    Source("naev-data", "naev/dat/snd/sounds"),
    Source("netpanzer-data", "games/netpanzer/sound"),
    Source("overgod-data", "games/overgod/wavs", leave="choir"),
    Source("oxygen-sounds", "sounds", r"^oxygen-"),
    Source("pekka-kana-2-data", "games/pekka-kana-2/data", r"^(sfx|sprites)/"),
    Source("pinball-data", "games/pinball", r"^(tux|professor)/", leave="intro|professor/prof|opentux|gplv|free|gnu_|song|gameover"),
    Source("plee-the-bear-data", "games/plee-the-bear/sound", leave="^plee/|^hit"),
    Source("scorched3d-data", "games/scorched3d/data/globalmods", leave="fight4life|extralife|radio|nuclearloop"),
    Source("sdl-ball-data", "games/sdl-ball/default/snd"),
    Source("simutrans-pak64", "games/simutrans/pak/sound"),
    Source("solarwolf", "games/solarwolf/data/audio", leave="vaauw"),
    Source("sound-theme-freedesktop", "sounds/freedesktop/stereo", leave="audio-channel|test-signal"),
    Source("starfighter-data", "starfighter/sound", leave="maledeath"),
    Source("supertux-data", "games/supertux2/sounds", leave="^(lava|switch)"),
    Source("trackballs-data", "games/trackballs/sfx", leave="laugh|die|monk|pill"),
    Source("tuxfootball", "games/tuxfootball/sound", leave="ingame"),
    Source("warmux-data", "games/warmux/sound/default", r"^(misc|weapons)/", leave="frog_music|sherif|newcomer|slap"),
    Source("warzone2100-data", "games/warzone2100", r"audio/sfx/"),
    Source("wing-data", "games/wing/sound"),
    Source("xemacs21-basesupport", "xemacs21/xemacs-packages/etc/sounds", leave="happy|kiss|cry|yeep|hype"),
    Source("supertux-data", "games/supertux2/music", music=True),
    Source("colobot-common-sounds", "games/colobot/music", leave="music010", music=True),
    Source("freecol", "games/freecol/default/resources/music", music=True),
    Source("hedgewars-data", "games/hedgewars/Data/Music", music=True),
    Source("naev-data", "naev/dat/snd/music", music=True),
    Source("starfighter-data", "starfighter/music", music=True),
    Source("trackballs-data", "games/trackballs/music", music=True),
    Source("marsshooter-data", "games/marsshooter/audio/music", music=True),
    Source("btanks-data", "games/btanks/data", r"^(tunes|sounds/ambient)/", leave="__", music=True),
    Source("btanks-data", "games/btanks/data/sounds", leave="deadman|ambient"),
    Source("lugaru-data", "games/lugaru/Sounds", leave="song|death|talk|music"),
    Source("scratch", "scratch/Media/Sounds", leave="human/(laugh|scream|baby|cough)|vocals|music loops/humanbeat|instruments"),
    Source("torcs-data", "games/torcs/data/sound"),
    Source("tuxpaint-stamps-default", "tuxpaint/stamps", leave="_desc|symbols|/(people|hobbies)/"),
)

# Judged by; their noise is never trained on.
HELD = {"btanks-data", "lugaru-data", "scratch", "torcs-data", "tuxpaint-stamps-default"}

# Where a piece of music is taken from, and how much of it; a shorter one from its start.
MUSIC_FROM_S, MUSIC_S = 20.0, 12.0


def family(stem):
    """`Blacksmith1` → `blacksmith`, `sword-miss-2` → `sword`: pieces are joined within it."""
    return re.match(r"[a-z]+", re.sub(r"[^a-z]+", "-", stem.lower()).strip("-") or "x").group(0)


def find(root):
    """Yields (split, source, family, name, path, is music), sorted within a source."""
    for s in SOURCES:
        base = root / "usr/share" / s.folder
        if not base.is_dir():
            raise SystemExit(f"corpus: {base} is missing; expected package {s.package} unpacked there")
        for p in sorted(base.rglob("*")):
            rel = p.relative_to(base).as_posix()
            if p.suffix.lower() not in (".ogg", ".oga", ".wav", ".flac", ".opus") or not re.search(s.take, rel, re.I) or re.search(s.leave, rel, re.I):
                continue
            if s.music or "music" not in rel and not re.search(VOICES, p.name, re.I):
                name = p.relative_to(base).with_suffix("").as_posix().replace("/", "-").lower()
                yield "valid-more" if s.package in HELD else "train", s.package, family(p.stem), name, p, s.music


def stretch(x, rate):
    """The stretch of a piece of music that is taken."""
    start = max(0, min(int(MUSIC_FROM_S * rate), len(x) - int(MUSIC_S * rate)))
    return x[start : start + int(MUSIC_S * rate)]
