//! A device that another program has. Without a card none can be, so ALSA gets a plug-in of its own kind, which says so when it is opened.

use std::path::Path;
use std::process::Command;

const PLUGIN: &str = r#"
#include <alsa/asoundlib.h>
#include <alsa/pcm_external.h>
#include <errno.h>
SND_PCM_PLUGIN_DEFINE_FUNC(busy) {
    (void)pcmp; (void)name; (void)root; (void)conf; (void)stream; (void)mode;
    return -EBUSY;
}
SND_PCM_PLUGIN_SYMBOL(busy);
"#;

fn built(folder: &Path) {
    std::fs::write(folder.join("busy.c"), PLUGIN).unwrap();
    let line = "-shared -fPIC -DPIC -o libbusy.so busy.c -lasound";
    let cc = Command::new("cc").args(line.split(' ')).current_dir(folder).status();
    assert!(cc.expect("a C compiler").success());
    let conf = format!(
        "pcm_type.busy {{ lib \"{}\" }}\npcm.taken {{ type busy hint {{ show on description \"taken\" }} }}\n",
        folder.join("libbusy.so").display()
    );
    std::fs::write(folder.join("asound.conf"), conf).unwrap();
}

#[test]
#[ignore = "needs ALSA's headers: make servers"]
fn a_busy_device_is_called_that() {
    let folder = tempfile::tempdir().unwrap();
    built(folder.path());
    let paths = format!("/usr/share/alsa/alsa.conf:{}", folder.path().join("asound.conf").display());
    let cascabel = |line: &str| {
        Command::new(env!("CARGO_BIN_EXE_cascabel"))
            .args(line.split(' '))
            .current_dir(folder.path())
            .env("ALSA_CONFIG_PATH", &paths)
            .output()
            .unwrap()
    };
    for line in ["live --input alsa:taken --output file:out.wav", "live --input null --output alsa:taken"] {
        let output = cascabel(line);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), complaint.lines().count()), (Some(2), 1), "{complaint}");
        assert!(complaint.contains("alsa:taken") && complaint.contains("busy"), "{complaint}");
    }
    assert!(!folder.path().join("out.wav").exists());
    let listed = String::from_utf8(cascabel("devices").stdout).unwrap();
    println!("{listed}");
    assert!(listed.contains("alsa:taken"));
}
