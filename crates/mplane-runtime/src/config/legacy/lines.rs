//! Reads INI files in the dialect of Python's `configparser`, in which the reference's
//! configurations are written.
//!
//! A line is a section `[name]`, `key = value` or `key: value`, a comment that begins with
//! `#` or `;`, or, indented, more of the value before it. Keys keep their case, a `#` behind
//! a value belongs to it. Other readers differ in all of these, so this one is our own.
//!
//! *Differences*: no interpolation of `%(name)s`; the reference's configurations have none.

use serde_json::{Map, Value};

/// Reads a file: an object of sections, each an object of texts.
pub(super) fn parse(text: &str) -> Result<Map<String, Value>, ParseIniError> {
    let mut sections = Map::new();
    let mut current: Option<(String, Map<String, Value>)> = None;
    let mut last_key: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        let refused = |problem| ParseIniError { line: index + 1, problem };
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t'])
            && let (Some(key), Some((_, section))) = (&last_key, &mut current)
        {
            if let Some(Value::String(value)) = section.get_mut(key) {
                value.push('\n');
                value.push_str(trimmed);
            }
            continue;
        }
        if let Some(rest) = trimmed.strip_prefix('[') {
            let name = rest.strip_suffix(']').ok_or_else(|| refused(Problem::Bracket))?;
            if let Some((name, section)) = current.take() {
                sections.insert(name, section.into());
            }
            if sections.contains_key(name) {
                return Err(refused(Problem::Section(name.into())));
            }
            current = Some((name.into(), Map::new()));
            last_key = None;
            continue;
        }
        let (_, section) = current.as_mut().ok_or_else(|| refused(Problem::Outside))?;
        let (key, value) =
            trimmed.split_once(['=', ':']).ok_or_else(|| refused(Problem::NoValue))?;
        let key = key.trim_end();
        if section.insert(key.into(), value.trim_start().into()).is_some() {
            return Err(refused(Problem::Key(key.into())));
        }
        last_key = Some(key.into());
    }
    if let Some((name, section)) = current {
        sections.insert(name, section.into());
    }
    Ok(sections)
}

/// Text that is no INI file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseIniError {
    line: usize,
    problem: Problem,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    /// A section without end.
    #[error("a section ends with ]")]
    Bracket,
    /// A section twice.
    #[error("section [{0}] is there twice; join them")]
    Section(String),
    /// A key before the first section.
    #[error("before the first key comes a section, such as [TLS]")]
    Outside,
    /// A key alone.
    #[error("a line is \"key = value\", [section] or a comment")]
    NoValue,
    /// A key twice.
    #[error("key {0} is there twice in its section; remove one")]
    Key(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_reference_reads() {
        let text = "# comment\n[TLS]\ncert = a b#c.crt\n ; comment\nca-chain: d:e.crt\n\n\
                    [Roles]\norg.mplane.Test.Clients.Client-1 = guest,\n  admin\n[empty]\n";
        let read = Value::from(parse(text).unwrap());
        assert_eq!(read["TLS"]["cert"], "a b#c.crt");
        assert_eq!(read["TLS"]["ca-chain"], "d:e.crt");
        assert_eq!(read["Roles"]["org.mplane.Test.Clients.Client-1"], "guest,\nadmin");
        assert_eq!(read["empty"], serde_json::json!({}));
    }

    #[test]
    fn refusals_name_the_line() {
        for (text, refusal) in [
            ("a = b", "line 1: before the first key comes a section, such as [TLS]"),
            ("[a]\n[b", "line 2: a section ends with ]"),
            ("[a]\n\nword", "line 3: a line is \"key = value\", [section] or a comment"),
            ("[a]\nb=1\nb=2", "line 3: key b is there twice in its section; remove one"),
            ("[a]\n[b]\n[a]", "line 3: section [a] is there twice; join them"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), refusal, "{text}");
        }
    }
}
