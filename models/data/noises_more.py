"""Still more noise: effects of some ninety small packages, each unpacked into a folder of its own.

Of each package: a pattern over the paths that are taken, and one over the names of what of them is left out. Single voices are
left out by `VOICES`, what `overlap.py` found in valid, valid-more or test by `noises_left_out.txt`, a minute at most is taken of a clip.
Sounds in a package's own containers are unpacked first (`containers.py`).
"""

import re
from pathlib import Path

import soundfile as sf

import audio

VOICES = (r"voice|/coms/|announcer|tutorial|/player/(?!.*(footstep|watr|splash))|soldiers|civilians|/aliens/|codriver|taunt|gasp|pain(?!t)|death|scream|laugh"
          r"|giggle|moan|gurp|sigh|speech|talk|say|women|woman|\bman\b|grunt|cry\b|hello|ouch|oof|ooh\b|ahh|woohoo|cough|breath|snor|sneez|excuseme|youcannot"
          r"|tuxok|areyousure|radiomessage|gplv|gnu_|freedom|freeball|free_|freesoftware|choir|singing|burp|whisper|yell|shout|die\d*\.|hurt|loser|yousuck|anthem"
          r"|hooray|lrheart|realrainbow|chat-slap|(1000?|500|100)-above|adjust|altitude|maintain|monitor|increase|terrain")
# Terms that this project cannot use.
UNFREE = r"sampling|noncommercial|non_commercial|_NC_"

MORE = {
    "7kaa-data": ("", ""),
    "alienblaster-data": ("wav$", ""),
    "amoebax-data": ("wav$", ""),
    "atanks-data": ("", ""),
    "avldrums.lv2-soundfont": (r"_[1245]\.|Maraca|Tamb|Shaker|Bell", "Red_Zeppelin.*(Maraca|Tamb|Cowbell|Paiste)"),
    "biniax2-data": ("", ""),
    "bomberclone-data": ("", ""),
    "boswars-data": ("expl|fire|shot|gun|laser|hit|attack|constr|build|mine|work|die|cannon|rocket|click|engine", "ready|select|action|completed|underattack|intro|chat|(engineer|assault|bazoo|grenadier|harvester|medic)_die"),
    "brainparty-data": ("", "ogg$"),
    "briquolo-data": ("", ""),
    "chuck-data": ("", "geetar"),
    "crrcsim-data": ("fan|electric|glider", ""),
    "cuyo-data": ("", ""),
    "davegnukem-data": ("wav$", ""),
    "deepin-sound-theme": ("", ""),
    "dreamchess-data": ("", ""),
    "dustracing2d-data": ("", ""),
    "flightgear-data-base": ("wav$", "(mk-viii|gpws|atis|atc|voice|speech|minimum|pullup|stall.?voice|tcas|descend|climb|traffic|clear)"),
    "foobillardplus-data": ("", "intro|ooh"),
    "freedink-data": ("fire|arrow|axe|bow|swing|sword|stairs|open|bird|burn|punch|gold|106", "grunt"),
    "freedoom": ("freedoom1/|freedoom2/", "ds(pos|bg|sg|cac|skl|ske|pl|vil|man|pe|knt|bsp(dth|sit|act)|bos|brs|cyb|spi|kei|dmpain|dmact|pdiehi|radio|oof|noway|slop|gasp|sk|spodth|vipain|sspdth|ssssit|popain|kntdth|pain)|.*sit|.*dth|.*act"),
    "freepats": ("", "Voice|Choir|Oohs|Synth_Pad"),
    "freetennis-common": (r"pubblico|auto search|battuta|colpo|contraz|fh|muro|net\.|palla|rete|risposta|spin|taglio|menu", "11025|Ahh|better|reach|out|late"),
    "frozen-bubble-data": ("snd|sfx", ""),
    "gajim": ("", ""),
    "gamine-data": ("wav$", "tuxok|youcannot|bach"),
    "garden-of-coloured-lights-data": ("", "voice|mouth"),
    "gcompris-qt-data": ("memory-sound|animals/|traffic|mining|erase|redraw|railroad|watercycle|canal_lock|core/|instruments/|money|helicopter|target|melody|click|slide|balloon", r"intro\.|LRWoman|LRMan|LRBaby|LRLaugh|tuxok|voices"),
    "gigalomania-data": ("biplane|bomb|jetplane|spaceship|woodbrk", ""),
    "gl-117-data": ("", ""),
    "gnome-audio": ("", ""),
    "gnome-control-center-data": ("", ""),
    "gnome-shell-pomodoro-data": ("", ""),
    "granatier": ("", "wow|die"),
    "hannah-data": ("wav$", ""),
    "holotz-castle-data": ("Exit|Acquired", ""),
    "hydrogen-data": ("", ""),
    "kapman": ("", ""),
    "kbounce": ("", ""),
    "kgoldrunner": ("", ""),
    "klickety": ("", ""),
    "knavalbattle": ("", ""),
    "kolf": ("", "woohoo"),
    "lbreakout2-data": ("", "verygood|excellent|damn|wow|great"),
    "linphone-common": ("oldphone|ringback|toy|incoming", "hello"),
    "lomiri-sounds": ("", ""),
    "minetest-mod-homedecor": ("", ""),
    "minetest-mod-mesecons": ("", "noteblock_[a-g]"),
    "monsterz-data": ("", "laugh|grunt"),
    "moon-lander-data": ("", "eagle"),
    "mrrescue": ("sfx", "countdown|happyfeerings|menujazz|scooterfest|bundesliga|jingle|victory"),
    "nexuiz-data": ("ambient|desertfactory|weather|weapons|plats|turrets|onslaught|porto|/misc/|cyberparcour|nexball|/kh/", "tuba|talk|menu"),
    "openarena-088-data": ("movers|grapple|/le/|items|pulchr", ""),
    "openarena-data": ("sound/(world|weapons|player/footsteps|items|misc|movers|player/watr)|mp-pak0.*(weapons|world)", "voices|moan"),
    "opencity-data": ("wav$", ""),
    "openssn-data": ("", ""),
    "openttd-opensfx": ("", "laugh|cheer_yay"),
    "pangzero": ("voc$", ""),
    "pathological": ("wav$", ""),
    "pidgin-data": ("", ""),
    "pinball-table-gnu-data": ("bump|flip|hit|knock|lock|nudge|plunger|raise|reset|shoot", "free"),
    "pinball-table-hurd-data": ("bump|flip|nudge|shoot|up", ""),
    "pingus-data": ("", "ouch|yipee|letsgo|ohno|oing|goop"),
    "pokerth-data": ("deal|bet|check|fold|raise|call|yourturn|notify", ""),
    "powermanga-data": ("sound_", ""),
    "psi-plus-sounds": ("", ""),
    "pychess": ("", ""),
    "pyracerz": ("", ""),
    "pysiogame": ("", ""),
    "qtmultimedia5-examples": ("", ""),
    "redeclipse-data": ("sounds/", "(male|female|voice|announce|taunt|/pain|/die|/gasp)"),
    "ri-li-data": ("", ""),
    "robocode": ("", ""),
    "seahorse-adventures": ("wav$", r"fally|[0-9]\."),
    "sound-icons": ("", ""),
    "stormbaancoureur-data": ("", ""),
    "supercollider-common": ("aiff$", ""),
    "trigger-rally-data": ("sounds/(wind|gravel|bang|engine|gear)", "codriver"),
    "triplea": ("battle|alien|dice|siren|bomb|click|phase|tech|territory|game", "anthem|trumpet"),
    "trophy-data": ("wav$", "goody|background"),
    "tuxmath-data": ("wav$|ogg$", "tuxi|0[123]_"),
    "tuxtype-data": ("", "tuxi|excuse|chiptune|amidst|win"),
    "twinkle-common": ("", ""),
    "ufoai-sound": ("", "talk|promotion|basealert|ufospotted"),
    "whichwayisup": ("", ""),
    "wordwarvi-sound": ("explos|clang|jetwash|flak|bomb|gunwheel|metalbang|stonebang|missile|rocket|synthetic|tesla|timpani|cardoor|volcano|zzzt|ground_smack|bodyslam", "fallingscream"),
    "workrave-data": ("", ""),
    "yaru-theme-sound": ("", ""),
}

LONGEST_S = 60.0
LEAST_S = 0.25


def find(root):
    """Yields (split, source, family, name, path, is music) as `noises.find`, for packages unpacked in root/PACKAGE."""
    left_out = set((Path(__file__).parent / "noises_left_out.txt").read_text().split())
    for package, (take, leave) in MORE.items():
        base = root / package
        if not base.is_dir():
            raise SystemExit(f"corpus: {base} is missing; expected package {package} unpacked there")
        names = set()
        for p in sorted(base.rglob("*")):
            rel = p.relative_to(base).as_posix()
            if p.suffix.lower() not in (".ogg", ".oga", ".wav", ".flac", ".opus", ".mp3", ".aiff", ".aif", ".au") or p.is_symlink():
                continue
            if not re.search(take or ".", rel, re.I) or leave and re.search(leave, p.name, re.I):
                continue
            name = re.sub(r"[^a-z0-9]+", "-", p.stem.lower()).strip("-")[:60] or "x"
            if re.search(VOICES, rel, re.I) or re.search(UNFREE, p.name) or name in names or f"{package}_{name}" in left_out:
                continue
            names.add(name)
            yield "train", f"x-{package}", "", name, p, False


def read(path):
    """A clip at 16 kHz, of a long one a minute; nothing if it is too short to be heard as noise."""
    frames, rate = sf.read(path, dtype="float32", always_2d=True, frames=-1)
    if len(frames) > LONGEST_S * rate:
        start = int(min(5.0, len(frames) / rate - LONGEST_S) * rate)
        frames = frames[start : start + int(LONGEST_S * rate)]
    return audio.to_mono_16k(frames, rate) if len(frames) >= LEAST_S * rate else frames[:0, 0]
