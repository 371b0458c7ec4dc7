//! Patterns of names, in which `*` stands for any text.

/// Says whether a text matches a pattern.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.split_at(at + part.len()).1;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_any_text() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "a.b", true),
            ("a*", "a.b", true),
            ("*b", "a.b", true),
            ("a*c", "a.b", false),
            ("*.Components.probe-*", "Demo.Components.probe-1", true),
            ("*.Components.probe-*", "Demo.Clients.probe-1", false),
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a*a", "a", false),
            ("a**b", "a.b", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
