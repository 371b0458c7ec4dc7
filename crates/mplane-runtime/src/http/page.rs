//! The page that lists capabilities.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::path;
use super::routes::Page;

/// What stands for something else in a path (RFC 3986, section 3.3).
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@')
    .remove(b':');

/// Lists capabilities as links; one more leads to those that follow. There are no others on
/// the page: the reference's crawler follows all that it finds, pages of links too.
pub(super) fn index(Page { capabilities, next }: &Page) -> String {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>mPlane capabilities</title></head><body>\n\
         <p>Welcome. Specifications of these mPlane capabilities are taken here by \
         POST.</p>\n<ul>\n",
    );
    for capability in capabilities {
        let token = capability.token();
        let token = utf8_percent_encode(token.as_str(), IN_PATH);
        let name = escape(capability.label().unwrap_or_else(|| capability.verb()));
        writeln!(page, "<li><a href=\"/capability/{token}\">{name}</a></li>")
            .expect("writing to text does not fail");
    }
    page.push_str("</ul>\n");
    if let Some(next) = next {
        let path = path::CAPABILITY_PAGE;
        writeln!(page, "<p><a href=\"{path}/after/{next}\">more</a></p>")
            .expect("writing to text does not fail");
    }
    page.push_str("</body></html>\n");
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
    use mplane::message::{Capability, Statement};

    use super::*;

    /// Makes a capability with a label.
    fn labelled(label: &str) -> Capability {
        let when = "now ... future / 1s".parse().unwrap();
        Capability::new(Statement::measure(when).labelled(label))
    }

    /// Makes a page of all there are.
    fn index_of(capabilities: Vec<Capability>) -> String {
        index(&Page { capabilities, next: None })
    }

    #[test]
    fn the_only_links_of_the_page_are_those_of_capabilities_and_of_the_next_page() {
        let ping = labelled("ping");
        let mut capabilities = vec![ping.clone(), labelled("<b>\"'&</b>")];
        let page = index_of(capabilities.clone());
        let link = format!("<li><a href=\"/capability/{}\">ping</a></li>", ping.token());
        assert!(page.contains(&link), "{page}");
        assert_eq!(page.matches("href").count(), 2, "{page}");
        assert_eq!(page.matches("://").count(), 0, "{page}");
        assert!(index_of(Vec::new()).contains("Welcome"));
        assert!(!index_of(Vec::new()).contains("href"));
        capabilities[0].set_token(Some("a b/c?@Demo.probe 1\"".parse().unwrap()));
        let page = index(&Page { capabilities, next: Some(7) });
        let link = "href=\"/capability/a%20b%2Fc%3F@Demo.probe%201%22\"";
        assert!(page.contains(link), "{page}");
        assert!(page.contains("href=\"/capability/after/7\""), "{page}");
        assert_eq!(page.matches("href").count(), 3, "{page}");
    }

    #[test]
    fn hostile_labels_stay_text() {
        let page = index_of(vec![labelled("</a><script>alert(\"1\" & '2')</script>")]);
        let text = "&lt;/a&gt;&lt;script&gt;alert(&quot;1&quot; &amp; &#39;2&#39;)\
                    &lt;/script&gt;</a></li>";
        assert!(page.contains(text), "{page}");
        assert!(!page.contains("<script"), "{page}");
    }
}
