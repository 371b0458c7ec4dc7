//! tStat's `runtime.conf` as text: sections in brackets, lines `NAME = VALUE`, comments
//! behind `#`.
//!
//! An edit changes the value of one name in one section; every other byte stays as it is,
//! and the text need not be UTF-8. The last line that has a name counts: a program that
//! goes through the file ends with its value.

use std::fmt::{self, Display};
use std::ops::Range;

/// A flag in `runtime.conf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flag {
    /// Whether completed TCP flows are logged at all.
    LogTcpComplete,
    /// Round-trip times and times to live with them.
    EndToEnd,
    /// Messages of peer-to-peer programs with them.
    P2p,
    /// Options of TCP with them.
    Options,
    /// Messages and names in TLS handshakes with them.
    Layer7,
}

impl Flag {
    /// Every flag.
    const ALL: [Self; 5] =
        [Self::LogTcpComplete, Self::EndToEnd, Self::P2p, Self::Options, Self::Layer7];

    /// Returns the section that it stands in.
    pub const fn section(self) -> &'static str {
        match self {
            Self::LogTcpComplete => "log",
            _ => "options",
        }
    }

    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LogTcpComplete => "log_tcp_complete",
            Self::EndToEnd => "tcplog_end_to_end",
            Self::P2p => "tcplog_p2p",
            Self::Options => "tcplog_options",
            Self::Layer7 => "tcplog_layer7",
        }
    }

    /// Returns the flag with a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flag| flag.name() == name)
    }
}

impl Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in [{}]", self.name(), self.section())
    }
}

/// Says whether a flag is on: its value is a number that is not zero.
pub fn is_on(text: &[u8], flag: Flag) -> Result<bool, SwitchError> {
    let value = value(text, flag).ok_or(SwitchError::Missing { flag })?;
    let value = String::from_utf8_lossy(&text[value]);
    let number: Result<i64, _> = value.parse();
    number.map(|number| number != 0).map_err(|_| SwitchError::NoNumber {
        flag,
        value: value.chars().take(40).collect(),
    })
}

/// Returns the text with a flag on or off; `None` if it is so already.
pub fn switch_in(
    text: &[u8],
    flag: Flag,
    on: bool,
) -> Result<Option<Vec<u8>>, SwitchError> {
    if is_on(text, flag)? == on {
        return Ok(None);
    }
    let value = value(text, flag).ok_or(SwitchError::Missing { flag })?;
    let digit: &[u8] = if on { b"1" } else { b"0" };
    Ok(Some([&text[..value.start], digit, &text[value.end..]].concat()))
}

/// Finds the value of a flag: from the first byte behind the equals sign that is no blank
/// to the next blank, comment or end of line. It is empty if there is none.
fn value(text: &[u8], flag: Flag) -> Option<Range<usize>> {
    let mut is_inside = false;
    let mut found = None;
    let mut start = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let at = start;
        start += line.len();
        let begin = line.iter().position(|byte| !is_blank(*byte)).unwrap_or(line.len());
        let said = &line[begin..];
        if let Some(section) = said.strip_prefix(b"[") {
            let name = section.split(|byte| *byte == b']').next().unwrap_or_default();
            is_inside = name.trim_ascii() == flag.section().as_bytes();
            continue;
        }
        // A comment in front of the sign is no name: what is left of it is not the same.
        let Some(sign) = said.iter().position(|byte| *byte == b'=') else { continue };
        if is_inside && said[..sign].trim_ascii() == flag.name().as_bytes() {
            let behind = &said[sign + 1..];
            let length = |bytes: &[u8], ends: fn(u8) -> bool| {
                bytes.iter().position(|byte| ends(*byte)).unwrap_or(bytes.len())
            };
            let blanks = length(behind, |byte| !is_blank(byte));
            let value = length(&behind[blanks..], |byte| {
                is_blank(byte) || matches!(byte, b'\n' | b'#' | b';')
            });
            let first = at + begin + sign + 1 + blanks;
            found = Some(first..first + value);
        }
    }
    found
}

/// Says whether a byte is a blank within a line; a carriage return is one.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// A flag that cannot be switched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    /// The text does not have it.
    #[error(
        "there is no {flag}; add the line {} = 0 to section [{}]",
        flag.name(),
        flag.section()
    )]
    Missing {
        /// The flag.
        flag: Flag,
    },
    /// Its value is no number.
    #[error(
        "{flag} has the value {value:?}, which is neither 0 nor 1; write one of them"
    )]
    NoNumber {
        /// The flag.
        flag: Flag,
        /// The value.
        value: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONF: &str = "# 0 and 1, log_tcp_complete = 0\n[log]\n\
        log_tcp_complete = 0   # 0: off, 1: on, 10 0 01\nlog_udp_complete = 0\n\
        [options]\n  tcplog_end_to_end\t=\t0# RTT 0\ntcplog_layer7=0\n\
        #tcplog_p2p = 0\ntcplog_p2p = 1 # 1\ntcplog_options = 0\n[dump]\nlog_tcp_complete = 0\n";

    fn switch(text: &str, flag: Flag, on: bool) -> Option<String> {
        let text = switch_in(text.as_bytes(), flag, on).unwrap();
        text.map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn only_the_value_of_the_name_in_its_section_changes() {
        for (flag, before, after) in [
            (
                Flag::LogTcpComplete,
                "\nlog_tcp_complete = 0   # 0: off, 1: on, 10 0 01\nlog_udp",
                "\nlog_tcp_complete = 1   # 0: off, 1: on, 10 0 01\nlog_udp",
            ),
            (Flag::EndToEnd, "\t=\t0# RTT 0\n", "\t=\t1# RTT 0\n"),
            (Flag::Layer7, "tcplog_layer7=0\n", "tcplog_layer7=1\n"),
            (Flag::Options, "tcplog_options = 0\n", "tcplog_options = 1\n"),
        ] {
            let on = switch(CONF, flag, true).unwrap();
            assert_eq!(on, CONF.replacen(before, after, 1), "{flag}");
            assert_ne!(on, CONF, "{flag}");
            assert_eq!(switch(&on, flag, true), None, "{flag} is on");
            assert_eq!(switch(&on, flag, false).unwrap(), CONF, "{flag}");
            assert_eq!(switch(CONF, flag, false), None, "{flag} is off");
        }
        let off = switch(CONF, Flag::P2p, false).unwrap();
        assert_eq!(off, CONF.replacen("= 1 # 1", "= 0 # 1", 1));
    }

    #[test]
    fn line_ends_of_every_kind_and_bytes_of_any_encoding_stay() {
        let text = b"[log] \r\n# \xe9t\xe9 0\r\nlog_tcp_complete = 0\r\n[ options ]\r\n";
        let on = switch_in(text, Flag::LogTcpComplete, true).unwrap().unwrap();
        let expected =
            b"[log] \r\n# \xe9t\xe9 0\r\nlog_tcp_complete = 1\r\n[ options ]\r\n";
        assert_eq!(on, expected);
        // The last line may have no end, and a value any digits.
        let text = "[options]\ntcplog_p2p = 00";
        assert_eq!(switch(text, Flag::P2p, true).unwrap(), "[options]\ntcplog_p2p = 1");
        assert!(is_on(b"[options]\ntcplog_p2p = 15", Flag::P2p).unwrap());
    }

    #[test]
    fn the_last_line_of_a_name_counts() {
        let text = "[options]\ntcplog_p2p = 1\n[log]\n[options]\ntcplog_p2p = 0\n";
        let on = switch(text, Flag::P2p, true).unwrap();
        assert_eq!(on, text.replace("= 0", "= 1"));
    }

    #[test]
    fn names_that_are_missing_and_values_that_are_none_are_told_with_the_remedy() {
        for text in [
            "",
            "log_tcp_complete = 0\n",
            "[options]\nlog_tcp_complete = 0\n",
            "[log]\n# log_tcp_complete = 0\nlog_tcp_complete\nxlog_tcp_complete = 0\n",
        ] {
            let error = switch_in(text.as_bytes(), Flag::LogTcpComplete, true);
            assert_eq!(
                error.unwrap_err().to_string(),
                "there is no log_tcp_complete in [log]; add the line log_tcp_complete = 0 \
                 to section [log]",
                "{text:?}"
            );
        }
        for value in ["", "on", "0x1", "# 0"] {
            let text = format!("[options]\ntcplog_layer7 = {value}\n");
            let error = is_on(text.as_bytes(), Flag::Layer7).unwrap_err().to_string();
            assert!(error.contains("neither 0 nor 1; write one of them"), "{error}");
        }
    }

    #[test]
    fn flags_have_different_names() {
        for flag in Flag::ALL {
            assert_eq!(Flag::of_name(flag.name()), Some(flag));
        }
        assert_eq!(Flag::of_name("log_udp_complete"), None);
    }

    proptest! {
        #[test]
        fn an_edit_changes_one_byte_range_at_most(
            text in "(\\[log\\]|\\[options\\]|log_tcp_complete|tcplog_p2p| |=|0|1|#|\r|\n){0,40}",
            on: bool,
        ) {
            for flag in Flag::ALL {
                let Ok(Some(edited)) = switch_in(text.as_bytes(), flag, on) else { continue };
                prop_assert_eq!(is_on(&edited, flag), Ok(on));
                let back = switch_in(&edited, flag, !on).unwrap().unwrap();
                prop_assert_eq!(is_on(&back, flag), Ok(!on));
                prop_assert_eq!(switch_in(&back, flag, on).unwrap().unwrap(), edited);
            }
        }
    }
}
