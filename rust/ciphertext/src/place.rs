//! Where a token stands, and which bodies are scanned.

use crate::boundary::Boundary;

/// What kind of text a body is: it decides how a clear text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not said: JSON when the first byte that is neither white space nor of a byte order mark opens
    /// an object, an array or a string, else text.
    Detect,
    /// A form (`application/x-www-form-urlencoded`): percent-encoded, and only a value that is wholly
    /// one token.
    Form,
    /// JSON: escaped inside strings, literals for numbers and booleans, keys left alone.
    Json,
    /// `multipart/form-data`: each part as what it is.
    Multipart(Boundary),
    /// Text: as it is.
    Text,
}

/// Whether and how a body of this content type is scanned (data-plane specification §4).
///
/// `application/json`, `text/json` and `*+json` are JSON, as in [MIME Sniffing] §4.6: raw clear text in
/// what the application reads as JSON could add fields. `application/x-www-form-urlencoded` is a form;
/// `multipart/form-data` is what its parts are, when its boundary is one. Other `text/*` is text; a body
/// without a content type is what it starts like. Everything else passes untouched. Other parameters
/// and letter case do not matter.
///
/// [MIME Sniffing]: https://mimesniff.spec.whatwg.org/#json-mime-type
pub fn place_for(content_type: Option<&[u8]>) -> Option<Place> {
    let Some(content_type) = content_type else {
        return Some(Place::Detect);
    };
    let essence = content_type
        .split(|byte| *byte == b';')
        .next()?
        .trim_ascii();
    if essence.is_empty() {
        return Some(Place::Detect);
    }
    let ends = |suffix: &[u8]| {
        let start = essence.len().checked_sub(suffix.len());
        start
            .and_then(|at| essence.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    let is = |name: &[u8]| essence.eq_ignore_ascii_case(name);
    if is(b"application/json") || is(b"text/json") || ends(b"+json") {
        return Some(Place::Json);
    }
    if is(b"application/x-www-form-urlencoded") {
        return Some(Place::Form);
    }
    if is(b"multipart/form-data") {
        return Boundary::of(content_type).map(Place::Multipart);
    }
    let is_text = essence
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"text/"));
    is_text.then_some(Place::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_by_any_name_is_json() {
        for name in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/ld+json",
            "text/json",
        ] {
            assert_eq!(
                place_for(Some(name.as_bytes())),
                Some(Place::Json),
                "{name}"
            );
        }
        assert_eq!(place_for(None), Some(Place::Detect));
        assert_eq!(place_for(Some(b" ; q=1")), Some(Place::Detect));
    }

    #[test]
    fn forms_are_forms_and_need_a_boundary_when_they_have_parts() {
        let form: &[u8] = b"Application/X-WWW-Form-Urlencoded; charset=utf-8";
        assert_eq!(place_for(Some(form)), Some(Place::Form));
        let parts: &[u8] = b"multipart/form-data; boundary=x";
        assert!(matches!(place_for(Some(parts)), Some(Place::Multipart(_))));
        assert_eq!(place_for(Some(b"multipart/form-data")), None);
        assert_eq!(place_for(Some(b"multipart/mixed; boundary=x")), None);
    }

    #[test]
    fn text_is_text_and_the_rest_passes() {
        assert_eq!(
            place_for(Some(b"text/plain; charset=utf-8")),
            Some(Place::Text)
        );
        for name in [
            "image/png",
            "application/octet-stream",
            "application/jsonx",
            "text",
            "+js",
        ] {
            assert_eq!(place_for(Some(name.as_bytes())), None, "{name}");
        }
    }
}
