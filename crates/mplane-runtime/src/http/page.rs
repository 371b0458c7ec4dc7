//! The page that lists capabilities.

use std::fmt::Write as _;

use mplane::message::Capability;

/// Lists capabilities as links. There are no others on the page: the reference's crawler
/// follows all that it finds.
pub(super) fn index(capabilities: &[Capability]) -> String {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>mPlane capabilities</title></head><body>\n\
         <p>Welcome. Specifications of these mPlane capabilities are taken here by \
         POST.</p>\n<ul>\n",
    );
    for capability in capabilities {
        let token = escape(capability.token().as_str());
        let name = escape(capability.label().unwrap_or_else(|| capability.verb()));
        writeln!(page, "<li><a href=\"/capability/{token}\">{name}</a></li>")
            .expect("writing to text does not fail");
    }
    page.push_str("</ul>\n</body></html>\n");
    page
}

/// Escapes text for HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use mplane::message::Statement;

    use super::*;

    /// Makes a capability with a label.
    fn labelled(label: &str) -> Capability {
        let when = "now ... future / 1s".parse().unwrap();
        Capability::new(Statement::measure(when).labelled(label))
    }

    #[test]
    fn the_only_links_of_the_page_are_those_of_capabilities() {
        let ping = labelled("ping");
        let page = index(&[ping.clone(), labelled("<b>\"'&</b>")]);
        let link = format!("<li><a href=\"/capability/{}\">ping</a></li>", ping.token());
        assert!(page.contains(&link), "{page}");
        assert_eq!(page.matches("href").count(), 2, "{page}");
        assert_eq!(page.matches("://").count(), 0, "{page}");
        assert!(index(&[]).contains("Welcome"));
        assert!(!index(&[]).contains("href"));
    }

    #[test]
    fn hostile_labels_stay_text() {
        let page = index(&[labelled("</a><script>alert(\"1\" & '2')</script>")]);
        let text = "&lt;/a&gt;&lt;script&gt;alert(&quot;1&quot; &amp; &#39;2&#39;)\
                    &lt;/script&gt;</a></li>";
        assert!(page.contains(text), "{page}");
        assert!(!page.contains("<script"), "{page}");
    }
}
