//! File names in messages, as GNU `cp` writes them.
//!
//! The rules, in order (they are those of coreutils' "shell-escape-always" quoting, described in its manual under
//! `QUOTING_STYLE`):
//! 1. A name of printable characters stands in single quotes: `'my file'`.
//! 2. One that has a single quote, and nothing that means something to a shell, stands in double quotes: `"it's"`.
//! 3. Else a single quote is written `'\''`, and a character that a terminal cannot show is written `$'\n'` or, by its
//!    bytes, `$'\303'`: `'two'$'\n''lines'`.
//!
//! What the result says can be pasted into a shell. Characters beyond ASCII are shown where the locale is UTF-8.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::sync::LazyLock;

/// Whether the environment's locale has UTF-8 as its character set (locale(7): `LC_ALL`, then `LC_CTYPE`, then `LANG`).
static UTF8: LazyLock<bool> = LazyLock::new(|| {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(std::env::var_os)
        .find(|value| !value.is_empty())
        .is_some_and(|value| {
            let value = value.to_string_lossy().to_ascii_lowercase();
            value.contains("utf-8") || value.contains("utf8")
        })
});

/// A name, quoted for a message in the process's locale.
#[must_use]
pub fn quote(name: impl AsRef<OsStr>) -> String {
    quote_in(name.as_ref().as_bytes(), *UTF8)
}

/// An argument's value, in the quotation marks of the process's locale, as coreutils quotes what is no file name.
#[must_use]
pub fn quote_argument(value: impl AsRef<OsStr>) -> String {
    let mut text = String::new();
    for piece in pieces(value.as_ref().as_bytes(), *UTF8) {
        match piece {
            Piece::Shown('\\') => text.push_str("\\\\"),
            Piece::Shown('\'') if !*UTF8 => text.push_str("\\'"),
            Piece::Shown(c) => text.push(c),
            Piece::Escaped(byte) => push_escape(&mut text, byte),
        }
    }
    if *UTF8 {
        format!("\u{2018}{text}\u{2019}")
    } else {
        format!("'{text}'")
    }
}

/// The same as [`quote`], without quotes where a shell would not need them ("shell-escape" in coreutils).
pub(crate) fn quote_if_needed(name: impl AsRef<OsStr>) -> String {
    let name = name.as_ref().as_bytes();
    let pieces: Vec<Piece> = pieces(name, *UTF8).collect();
    let is_bare = |(i, piece): (usize, &Piece)| match piece {
        // They mean something at the beginning only.
        Piece::Shown('#' | '~') => i > 0,
        piece => piece.is_plain(),
    };
    if !pieces.is_empty() && pieces.iter().enumerate().all(is_bare) {
        return String::from_utf8_lossy(name).into_owned();
    }
    quote_in(name, *UTF8)
}

fn quote_in(name: &[u8], utf8: bool) -> String {
    let chunks: Vec<Piece> = pieces(name, utf8).collect();
    let is_quote = |piece: &Piece| matches!(piece, Piece::Shown('\''));
    let has_quote = chunks.iter().any(is_quote);
    let harmless = |(i, piece): (usize, &Piece)| match piece {
        Piece::Shown(' ' | '\'') => true,
        Piece::Shown('#' | '~') => i == 0,
        piece => piece.is_plain(),
    };
    if has_quote && chunks.iter().enumerate().all(harmless) {
        let text: String = chunks.iter().map(Piece::shown).collect();
        return format!("\"{text}\"");
    }
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('\'');
    // coreutils goes over a name with a single quote twice, and comes to the second time as it ended the first.
    let mut escaping = has_quote && matches!(chunks.last(), Some(Piece::Escaped(_)));
    for piece in &chunks {
        match *piece {
            Piece::Shown(c) => {
                if c == '\'' {
                    // Ends an escape as well.
                    quoted.push_str("'\\''");
                } else {
                    if escaping {
                        quoted.push_str("''");
                    }
                    quoted.push(c);
                }
                escaping = false;
            }
            Piece::Escaped(byte) => {
                if !escaping {
                    quoted.push_str("'$'");
                    escaping = true;
                }
                push_escape(&mut quoted, byte);
            }
        }
    }
    quoted.push('\'');
    quoted
}

/// A character that is shown as it is, or a byte that is not.
enum Piece {
    Shown(char),
    Escaped(u8),
}

impl Piece {
    /// Whether it means nothing to a shell.
    fn is_plain(&self) -> bool {
        match self {
            Self::Shown(c) => {
                !c.is_ascii() || c.is_ascii_alphanumeric() || "%+,-./:@]_".contains(*c)
            }
            Self::Escaped(_) => false,
        }
    }

    fn shown(&self) -> char {
        match *self {
            Self::Shown(c) => c,
            Self::Escaped(_) => char::REPLACEMENT_CHARACTER,
        }
    }
}

fn pieces(name: &[u8], utf8: bool) -> impl Iterator<Item = Piece> {
    name.utf8_chunks().flat_map(move |chunk| {
        let valid = chunk.valid().chars().flat_map(move |c| {
            let shown = !c.is_control() && (c.is_ascii() || utf8);
            let mut bytes = [0; 4];
            let len = if shown {
                0
            } else {
                c.encode_utf8(&mut bytes).len()
            };
            let escaped = bytes.into_iter().take(len).map(Piece::Escaped);
            shown.then_some(Piece::Shown(c)).into_iter().chain(escaped)
        });
        let invalid = chunk.invalid().iter().copied().map(Piece::Escaped);
        valid.chain(invalid)
    })
}

fn push_escape(quoted: &mut String, byte: u8) {
    let letter = match byte {
        0x07 => 'a',
        0x08 => 'b',
        b'\t' => 't',
        b'\n' => 'n',
        0x0b => 'v',
        0x0c => 'f',
        b'\r' => 'r',
        _ => {
            // Writing to a String cannot fail.
            let _ = write!(quoted, "\\{byte:03o}");
            return;
        }
    };
    quoted.push('\\');
    quoted.push(letter);
}

#[cfg(test)]
mod tests {
    use super::quote_in;

    /// Each expectation is what `cp NAME x` of GNU coreutils 9.1 prints for a NAME that is not there.
    #[test]
    fn names_are_quoted_as_cp_quotes_them() {
        for (name, expected) in [
            (&b"plain"[..], "'plain'"),
            (b"", "''"),
            (b"a b", "'a b'"),
            (b"nofi'le", "\"nofi'le\""),
            (b"no\"it's", r#"'no"it'\''s'"#),
            (b"it's $5", r"'it'\''s $5'"),
            (b"it's~", r"'it'\''s~'"),
            (b"~it's", "\"~it's\""),
            (b"it's (1)", r"'it'\''s (1)'"),
            (b"no\nfile", r"'no'$'\n''file'"),
            (b"\n", r"''$'\n'"),
            (b"\x01\x7f", r"''$'\001\177'"),
            (b"a\xff", r"'a'$'\377'"),
            (b"a\n'b", r"'a'$'\n'\''b'"),
            (b"it's\n", r"'''it'\''s'$'\n'"),
            (b"'\n", r"''\'''$'\n'"),
            (b"a'b\x01c", r"'a'\''b'$'\001''c'"),
            ("\u{e4}".as_bytes(), "'\u{e4}'"),
        ] {
            assert_eq!(quote_in(name, true), expected);
        }
    }

    #[test]
    fn other_locales_show_ascii_only() {
        assert_eq!(quote_in("\u{e4}x".as_bytes(), false), r"''$'\303\244''x'");
    }
}
