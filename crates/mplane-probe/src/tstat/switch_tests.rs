//! Flags in files of their own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;

const CONF: &str = "[log]\nlog_tcp_complete = 0 # 0\n[options]\ntcplog_end_to_end = 0\n\
                    tcplog_p2p = 1\ntcplog_options = 0\n";

const CORE: &[Flag] = &[Flag::LogTcpComplete];
const END_TO_END: &[Flag] = &[Flag::LogTcpComplete, Flag::EndToEnd];
const P2P: &[Flag] = &[Flag::LogTcpComplete, Flag::P2p];
const LAYER7: &[Flag] = &[Flag::LogTcpComplete, Flag::Layer7];

/// A folder with a `runtime.conf`.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("runtime.conf");
    fs::write(&path, CONF).expect("it is ours");
    (folder, path)
}

/// Returns the flags that are on.
fn on(path: &Path) -> Vec<Flag> {
    let text = fs::read(path).expect("it is there");
    let flags = [Flag::LogTcpComplete, Flag::EndToEnd, Flag::P2p, Flag::Options];
    flags.into_iter().filter(|flag| is_on(&text, *flag) == Ok(true)).collect()
}

#[test]
fn a_flag_is_on_from_the_first_to_the_last_who_needs_it() {
    let (_folder, path) = folder();
    let switches = Switches::open(&path).unwrap();
    let first = switches.hold(END_TO_END).unwrap();
    assert_eq!(on(&path), [Flag::LogTcpComplete, Flag::EndToEnd, Flag::P2p]);
    let second = switches.hold(END_TO_END).unwrap();
    let core = switches.hold(CORE).unwrap();
    drop(first);
    assert_eq!(on(&path), [Flag::LogTcpComplete, Flag::EndToEnd, Flag::P2p]);
    drop(second);
    assert_eq!(on(&path), [Flag::LogTcpComplete, Flag::P2p], "core goes on");
    drop(core);
    assert_eq!(fs::read_to_string(&path).unwrap(), CONF);
}

#[test]
fn what_was_on_before_stays_on() {
    let (_folder, path) = folder();
    let switches = Switches::open(&path).unwrap();
    let held = switches.hold(P2P).unwrap();
    assert_eq!(on(&path), [Flag::LogTcpComplete, Flag::P2p]);
    drop(held);
    assert_eq!(fs::read_to_string(&path).unwrap(), CONF);
}

#[test]
fn changes_of_others_stay_and_the_mode_too() {
    let (_folder, path) = folder();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let switches = Switches::open(&path).unwrap();
    let held = switches.hold(CORE).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("tcplog_options = 0", "tcplog_options = 1 # me"))
        .unwrap();
    drop(held);
    let expected = CONF.replace("tcplog_options = 0", "tcplog_options = 1 # me");
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    // One who switches a flag off himself is not overruled.
    let held = switches.hold(CORE).unwrap();
    fs::write(&path, CONF).unwrap();
    drop(held);
    assert_eq!(fs::read_to_string(&path).unwrap(), CONF);
}

#[test]
fn a_file_goes_to_another_owner_only_if_the_former_one_can_read_it() {
    for (mode, is_group_kept, expected) in [
        (0o100_644, false, true),
        (0o100_640, true, true),
        (0o100_640, false, false),
        (0o100_600, true, false),
        (0o100_622, true, false),
    ] {
        assert_eq!(is_readable(mode, is_group_kept), expected, "{mode:o}");
    }
}

#[test]
fn those_who_open_a_file_twice_share_it() {
    let (folder, path) = folder();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let [first, second] = [&path, &link].map(|path| Switches::open(path).unwrap());
    let held = first.hold(END_TO_END).unwrap();
    drop(first);
    let core = second.hold(CORE).unwrap();
    drop(held);
    assert_eq!(on(&path), [Flag::LogTcpComplete, Flag::P2p]);
    drop(core);
    assert_eq!(fs::read_to_string(&path).unwrap(), CONF);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn another_program_is_refused_while_one_is_in_charge() {
    let (_folder, path) = folder();
    let lock = File::create(beside(&path, "mplane")).unwrap();
    lock.try_lock().unwrap();
    let error = Switches::open(&path).unwrap_err().to_string();
    assert!(error.starts_with("another program switches the flags in "), "{error}");
    lock.unlock().unwrap();
    Switches::open(&path).unwrap();
}

#[test]
fn flags_that_a_program_left_on_are_switched_off() {
    let (_folder, path) = folder();
    let left = CONF.replacen("= 0", "= 1", 2);
    fs::write(&path, &left).unwrap();
    let journal = beside(&path, "mplane");
    // It knows what it has switched on, and no more; a flag that is gone is no obstacle.
    fs::write(&journal, "log_tcp_complete\ntcplog_end_to_end\ntcplog_layer7\ntcplog")
        .unwrap();
    let switches = Switches::open(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), CONF);
    assert_eq!(fs::read_to_string(&journal).unwrap(), "");
    let held = switches.hold(END_TO_END).unwrap();
    let written = fs::read_to_string(&journal).unwrap();
    assert_eq!(written, "log_tcp_complete\ntcplog_end_to_end\n");
    drop(held);
    assert_eq!(fs::read_to_string(&journal).unwrap(), "");
}

#[test]
fn files_that_cannot_be_used_are_told() {
    let (folder, path) = folder();
    let missing = Switches::open(&folder.path().join("none")).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read "), "{missing}");
    let switches = Switches::open(&path).unwrap();
    switches.check(END_TO_END).unwrap();
    for error in [switches.check(LAYER7).unwrap_err(), switches.hold(LAYER7).unwrap_err()]
    {
        let error = mplane_runtime::report(&error);
        assert!(error.contains("add the line tcplog_layer7 = 0 to section"), "{error}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), CONF, "all of them or none");
    // A folder stands where the new file is to be written.
    fs::create_dir(beside(&path, "mplane-new")).unwrap();
    let error = switches.hold(CORE).unwrap_err().to_string();
    assert!(error.contains("needs the right to write in its folder"), "{error}");
    assert_eq!(fs::read_to_string(beside(&path, "mplane")).unwrap(), "");
    let large = vec![b'#'; usize::try_from(BYTES).unwrap()];
    fs::write(&path, &large).unwrap();
    assert!(matches!(switches.check(&[]), Ok(())));
    fs::write(&path, [&large[..], b"#"].concat()).unwrap();
    let error = switches.check(&[]).unwrap_err().to_string();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
}
