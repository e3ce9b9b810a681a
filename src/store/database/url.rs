//! What a database URL says about TLS and about standbys, in both of its forms:
//! `postgres://…` and libpq's keywords and values. Of these parameters tokio-postgres knows
//! some and refuses the others, and it does not say whether a value was given or is the
//! default. So they are all removed before tokio-postgres reads the URL.
//!
//! It does not know what the parameters mean: `tls` and `connector` do.

use percent_encoding::percent_decode_str;

/// The parameters of a database URL that we read ourselves. If one is repeated, the last
/// value counts, as in libpq.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// `sslmode`.
    pub(super) mode: Option<String>,
    /// `sslrootcert`: a file, or `system`.
    pub(super) root_certificate: Option<String>,
    /// `sslcert`: a file.
    pub(super) certificate: Option<String>,
    /// `sslkey`: a file.
    pub(super) key: Option<String>,
    /// `target_session_attrs`: which servers are acceptable.
    pub(super) target: Option<String>,
}

impl Parameters {
    /// Takes our parameters out of the URL. The rest is for tokio-postgres, which also finds
    /// what is wrong with it.
    pub(super) fn take_from(url: &str) -> (String, Self) {
        let is_url = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.starts_with(scheme));
        if is_url {
            Self::take_from_query(url)
        } else {
            Self::take_from_keywords(url)
        }
    }

    fn take_from_query(url: &str) -> (String, Self) {
        let mut parameters = Self::default();
        // A password may contain a question mark.
        let host = url.find('@').unwrap_or_default();
        let Some(query) = url[host..].find('?').map(|place| host + place) else {
            return (url.to_owned(), parameters);
        };
        let mut rest = url[..query].to_owned();
        let mut separator = '?';
        for pair in url[query + 1..].split('&') {
            let taken = pair
                .split_once('=')
                .is_some_and(|(key, value)| parameters.take(&decoded(key), decoded(value)));
            if !taken {
                rest.push(separator);
                rest.push_str(pair);
                separator = '&';
            }
        }
        (rest, parameters)
    }

    fn take_from_keywords(text: &str) -> (String, Self) {
        let mut parameters = Self::default();
        let mut rest = String::new();
        let mut unread = text;
        while let Some((key, value, after)) = first_pair(unread) {
            if !parameters.take(key, value) {
                rest.push_str(&unread[..unread.len() - after.len()]);
                rest.push(' ');
            }
            unread = after;
        }
        rest.push_str(unread);
        (rest, parameters)
    }

    /// Keeps the parameter if it is one of ours, and returns whether it is.
    fn take(&mut self, key: &str, value: String) -> bool {
        let (place, empty_is_absent) = match key {
            "sslmode" => (&mut self.mode, false),
            "sslrootcert" => (&mut self.root_certificate, true),
            "sslcert" => (&mut self.certificate, true),
            "sslkey" => (&mut self.key, true),
            "target_session_attrs" => (&mut self.target, false),
            _ => return false,
        };
        *place = Some(value).filter(|value| !(empty_is_absent && value.is_empty()));
        true
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The first `key = value` of the text: the key, the value without its quotes
/// and backslashes, and what follows. `None` at the end of the text, and if it is not well
/// formed.
fn first_pair(text: &str) -> Option<(&str, String, &str)> {
    let (key, rest) = text.split_once('=')?;
    let key = key.trim();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return None;
    }
    let rest = rest.trim_start();
    let is_quoted = rest.starts_with('\'');
    let mut value = String::new();
    let mut characters = rest.char_indices().skip(usize::from(is_quoted));
    while let Some((place, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if is_quoted => return Some((key, value, &rest[place + 1..])),
            space if space.is_whitespace() && !is_quoted => {
                return Some((key, value, &rest[place..]));
            }
            other => value.push(other),
        }
    }
    (!is_quoted).then_some((key, value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(values: [Option<&str>; 4]) -> Parameters {
        let [mode, root_certificate, certificate, key] = values.map(|one| one.map(str::to_owned));
        Parameters {
            mode,
            root_certificate,
            certificate,
            key,
            target: None,
        }
    }

    #[test]
    fn what_a_url_says_about_standbys_is_taken_out_of_it() {
        for (url, rest) in [
            (
                "postgres://a,b/d?target_session_attrs=any",
                "postgres://a,b/d",
            ),
            ("host=a,b target_session_attrs=any", "host=a,b "),
        ] {
            let target = Some("any".to_owned());
            let expected = Parameters {
                target,
                ..Parameters::default()
            };
            assert_eq!(Parameters::take_from(url), (rest.to_owned(), expected));
        }
    }

    #[test]
    fn what_a_url_says_about_tls_is_taken_out_of_it() {
        let full = Some("verify-full");
        for (url, rest, expected) in [
            ("postgres://h/d", "postgres://h/d", [None; 4]),
            (
                "postgres://u:p@h/d?sslmode=verify-full",
                "postgres://u:p@h/d",
                [full, None, None, None],
            ),
            (
                "postgresql://u@h/d?a=1&sslmode=verify%2Dfull&b=%20&sslrootcert=%2Fa%20b&c=",
                "postgresql://u@h/d?a=1&b=%20&c=",
                [full, Some("/a b"), None, None],
            ),
            (
                "postgres://u:p?sslmode=disable&x@h?sslcert=c&sslkey=k&user=v",
                "postgres://u:p?sslmode=disable&x@h?user=v",
                [None, None, Some("c"), Some("k")],
            ),
            (
                "postgres://h?sslmode=require&sslmode=verify-full&sslrootcert=&nonsense",
                "postgres://h?nonsense",
                [full, None, None, None],
            ),
        ] {
            assert_eq!(
                Parameters::take_from(url),
                (rest.to_owned(), parameters(expected)),
                "{url}"
            );
        }
    }

    #[test]
    fn what_keywords_say_about_tls_is_taken_out_of_them() {
        let full = Some("verify-full");
        for (text, rest, expected) in [
            ("host=h port=1", "host=h  port=1 ", [None; 4]),
            (
                "host=h sslmode=verify-full user=u",
                "host=h  user=u ",
                [full, None, None, None],
            ),
            (
                r"sslrootcert = '/a \'b\' c'user=u sslcert=/a\ b",
                "user=u ",
                [None, Some("/a 'b' c"), Some("/a b"), None],
            ),
            (
                "password='x sslmode=disable' sslkey=k",
                "password='x sslmode=disable' ",
                [None, None, None, Some("k")],
            ),
            ("sslmode=require sslmode=", "", [Some(""), None, None, None]),
            ("host=h password='x", "host=h  password='x", [None; 4]),
            ("host=h a b=c", "host=h  a b=c", [None; 4]),
            ("", "", [None; 4]),
        ] {
            assert_eq!(
                Parameters::take_from(text),
                (rest.to_owned(), parameters(expected)),
                "{text}"
            );
        }
    }
}
