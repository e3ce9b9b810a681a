//! A program with its arguments, in one text: words, quotes and backslashes as in a shell, and
//! nothing else of a shell.

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandLine {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
}

/// Splits a text into words at white space. Within '…' every character stands for itself, within
/// "…" a backslash before " or \ is dropped, and outside quotes before any character.
pub(super) fn parse(text: &str) -> Result<CommandLine, String> {
    let mut words = Vec::new();
    let mut word = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_with(String::new);
        match c {
            '\'' | '"' => loop {
                match chars.next() {
                    None => return Err(format!("the closing {c} is missing")),
                    Some(end) if end == c => break,
                    Some('\\') if c == '"' => {
                        let escaped = chars.next_if(|next| matches!(next, '"' | '\\'));
                        word.push(escaped.unwrap_or('\\'));
                    }
                    Some(inner) => word.push(inner),
                }
            },
            '\\' => match chars.next() {
                Some(escaped) => word.push(escaped),
                None => return Err("there is nothing after the last backslash".to_owned()),
            },
            other => word.push(other),
        }
    }
    words.extend(word);
    let mut words = words.into_iter();
    match words.next() {
        Some(program) if !program.is_empty() => Ok(CommandLine {
            program,
            arguments: words.collect(),
        }),
        _ => Err("it does not name a program".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        for (text, words) in [
            ("vault", &["vault"][..]),
            ("  vault\tprint \n token ", &["vault", "print", "token"]),
            (
                r#"sh -c 'cat "a b" | head -1'"#,
                &["sh", "-c", r#"cat "a b" | head -1"#],
            ),
            (r#"a "b \"c\" \\ \d" ''"#, &["a", r#"b "c" \ \d"#, ""]),
            (r"a b\ c\'d", &["a", "b c'd"]),
            (r#"a b'c'"d"e"#, &["a", "bcde"]),
            (
                "a $HOME * | ~ > b",
                &["a", "$HOME", "*", "|", "~", ">", "b"],
            ),
        ] {
            let line = parse(text).expect(text);
            let found: Vec<_> = [line.program].into_iter().chain(line.arguments).collect();
            assert_eq!(found, words, "{text}");
        }
        for text in ["", "  ", "''", "a 'b", "a \"b", "a \"b\\", "a \\"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
