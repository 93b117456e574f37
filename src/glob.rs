//! Globs as git has them, in the words of the crate globset, whose syntax is another one where git's has less or more:
//!
//! | | git (gitignore(5), glob(7)) | globset |
//! |---|---|---|
//! | `{a,b}` | five characters | one of the two |
//! | `[[:alpha:]]` | a letter | a character of `[:alph`, and a bracket |
//! | `[\]]` | a bracket | a backslash, and a bracket |
//! | `\\/` | a directory that ends with a backslash | one that does not |
//! | `[!a]`, `[+-9]` | never a slash | a slash, too |
//! | `***` | `**` | some are `*` |
//! | `a**/b` | any number of directories, the first of them `a` and more | one directory |
//! | a bracket that nothing closes | matches nothing | a bracket, or an error |
//! | white space at the end, but for blanks | is part of it | is left out |

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

/// A line of a `.gitignore` file, as the crate ignore understands it; `None` if it matches nothing.
pub(crate) fn translated(line: &str) -> Option<String> {
    if line.starts_with('#') {
        return Some(line.to_owned());
    }
    let line = trimmed(line);
    if matches!(line.strip_prefix('!').unwrap_or(line), "" | "/") {
        return None;
    }
    let inner = line.trim_end_matches('/');
    if is_escaping(inner) && inner.len() < line.len() {
        return None;
    }
    let mut translated = String::with_capacity(line.len());
    let mut rest = line.chars().peekable();
    let mut has_negation = false;
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next()? {
                '\\' => translated += "[\\]",
                escaped => translated.extend([c, escaped]),
            },
            '{' | '}' => translated.extend(['\\', c]),
            '*' => {
                let mut stars = 1;
                while rest.next_if_eq(&'*').is_some() {
                    stars += 1;
                }
                let spans_dirs = stars > 1 && matches!(rest.peek(), None | Some('/'));
                let start = translated.len() - translated.trim_start_matches(['!', '/']).len();
                let before = translated.split_off(start);
                // What comes before the first wildcard is compared beforehand, and this is then the first.
                let is_literal = !before.contains(['*', '?', '[', '\\']);
                translated += &if spans_dirs && (before.is_empty() || before.ends_with('/')) {
                    before + "**"
                } else if spans_dirs
                    && is_literal
                    && inner.contains('/')
                    && rest.clone().nth(1).is_some()
                {
                    rest.next();
                    let before = before.replace(',', "\\,");
                    format!("{{{before},{before}*/**/}}")
                } else {
                    before + "*"
                };
            }
            '[' => {
                has_negation |= matches!(rest.peek(), Some('!' | '^'));
                translated += &class(&mut rest)?;
            }
            _ => translated.push(c),
        }
    }
    if let Some(last) = translated.chars().last().filter(|c| c.is_whitespace()) {
        translated.pop();
        if is_escaping(&translated) {
            translated.pop();
        }
        translated.extend(['{', last, '}']);
    }
    // A slash makes it match a whole path: even the one that a class is not to match, and that which was in one.
    let at = usize::from(translated.starts_with('!'));
    if !inner.contains('/') && has_negation {
        translated.insert_str(at, "**/");
    } else if inner.contains('/') && !translated[at..].trim_end_matches('/').contains('/') {
        translated.insert(at, '/');
    }
    Some(translated)
}

/// A line without the blanks at its end; the first of them stays if it is escaped.
pub(crate) fn trimmed(line: &str) -> &str {
    let rest = line.trim_end_matches(' ');
    let has_blank = rest.len() < line.len() && is_escaping(rest);
    &line[..rest.len() + usize::from(has_blank)]
}

/// Whether what comes behind is escaped.
pub(crate) fn is_escaping(text: &str) -> bool {
    text.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1
}

/// What is between brackets; the first one has been read.
fn class(rest: &mut Peekable<Chars>) -> Option<String> {
    let is_negated = rest.next_if(|&c| c == '!' || c == '^').is_some();
    let mut members = BTreeSet::new();
    let mut ranges = Vec::new();
    let mut is_first = true;
    loop {
        let mut c = rest.next()?;
        if c == ']' && !is_first {
            break;
        }
        is_first = false;
        if c == '[' && rest.peek() == Some(&':') {
            let mut ahead = rest.clone();
            // None is longer.
            let name = ahead.by_ref().skip(1).take("xdigit:]".len());
            let name: String = name.take_while(|&c| c != ']').collect();
            if let Some(name) = name.strip_suffix(':') {
                members.extend(named(name)?);
                *rest = ahead;
                continue;
            }
        }
        if c == '\\' {
            c = rest.next()?;
        }
        members.insert(c);
        let mut ahead = rest.clone();
        if ahead.next() == Some('-') && ahead.next().is_some_and(|end| end != ']') {
            rest.next();
            let mut end = rest.next()?;
            if end == '\\' {
                end = rest.next()?;
            }
            // What may mean something else is taken one by one.
            members.extend((c..=end).take_while(char::is_ascii));
            let beyond = c.max('\u{80}');
            if beyond <= end {
                ranges.push((beyond, end));
            }
        }
    }
    if is_negated {
        members.insert('/');
    } else {
        members.remove(&'/');
    }
    written(is_negated, members, &ranges)
}

/// The characters of `[:name:]`.
fn named(name: &str) -> Option<impl Iterator<Item = char> + use<>> {
    let is_member: fn(&char) -> bool = match name {
        "alnum" => char::is_ascii_alphanumeric,
        "alpha" => char::is_ascii_alphabetic,
        "blank" => |c| matches!(c, ' ' | '\t'),
        "cntrl" => char::is_ascii_control,
        "digit" => char::is_ascii_digit,
        "graph" => char::is_ascii_graphic,
        "lower" => char::is_ascii_lowercase,
        "print" => |c| matches!(c, ' '..='~'),
        "punct" => char::is_ascii_punctuation,
        "space" => |c| matches!(c, ' ' | '\t'..='\r'),
        "upper" => char::is_ascii_uppercase,
        "xdigit" => char::is_ascii_hexdigit,
        _ => return None,
    };
    Some(('\0'..='\u{7f}').filter(is_member))
}

/// A class in globset's words, in which nothing is escaped: a bracket comes first, `!` and `^` do not, and a hyphen comes first
/// or last. `None` if nothing is in it.
fn written(
    is_negated: bool,
    mut members: BTreeSet<char>,
    ranges: &[(char, char)],
) -> Option<String> {
    let mut take = |c: char| members.remove(&c).then_some(c);
    let (bracket, hyphen) = (take(']'), take('-'));
    let signs: Vec<char> = ['!', '^'].into_iter().filter_map(take).collect();
    let mut inner = String::from_iter(bracket);
    inner.extend(&members);
    for (start, end) in ranges {
        inner.extend([*start, '-', *end]);
    }
    if inner.is_empty() {
        match (hyphen, &signs[..]) {
            (None, []) => return None,
            (None, [sign]) => return Some(format!("\\{sign}")),
            (None, _) => return Some("{\\!,\\^}".to_owned()),
            (Some(_), _) => inner.extend(hyphen.into_iter().chain(signs)),
        }
    } else {
        inner.extend(signs.into_iter().chain(hyphen));
    }
    let negation = if is_negated { "!" } else { "" };
    Some(format!("[{negation}{inner}]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_left_as_it_is_and_the_rest_said_otherwise() {
        for (line, expected) in [
            ("*.o", Some("*.o")),
            ("/build/", Some("/build/")),
            ("!a\\ ", Some("!a{ }")),
            ("{a,b}", Some("\\{a,b\\}")),
            ("[a-c]x", Some("[abc]x")),
            ("[b-a]", Some("[b]")),
            ("[]-]", Some("[]-]")),
            ("[\\]a]", Some("[]a]")),
            ("[[:digit:]]", Some("[0123456789]")),
            ("[[:x]", Some("[:[x]")),
            ("x[!a]a", Some("**/x[!/a]a")),
            ("!d/[^a]", Some("!d/[!/a]")),
            ("x[/]a", None),
            ("[a", None),
            ("[[:nothing:]]", None),
            ("a\\", None),
            ("a\\/", None),
            ("a\\\\/", Some("a[\\]/")),
            ("***/a", Some("**/a")),
            ("foo**/***", Some("{foo,foo*/**/}*")),
            ("!**", Some("!**")),
            ("!/f**/a", Some("!/{f,f*/**/}a")),
            ("x/a,b**/c", Some("{x/a\\,b,x/a\\,b*/**/}c")),
            ("a/foo**/", Some("a/foo*/")),
            ("a/**b", Some("a/*b")),
            ("# [!x]", Some("# [!x]")),
            ("[/f]oo", Some("/[f]oo")),
            ("!a/[b]/", Some("!a/[b]/")),
            ("[!]", None),
            ("[\\!]", Some("\\!")),
            ("[\\^!]", Some("{\\!,\\^}")),
            ("[-!]", Some("[-!]")),
            ("[а-я]", Some("[аа-я]")),
            ("a\t ", Some("a{\t}")),
            ("Icon\r", Some("Icon{\r}")),
            ("a\u{a0}", Some("a{\u{a0}}")),
            ("a\\   ", Some("a{ }")),
            ("a\\\\ ", Some("a[\\]")),
            ("a\\\t", Some("a{\t}")),
            ("  ", None),
            ("a ", Some("a")),
        ] {
            assert_eq!(translated(line).as_deref(), expected, "{line}");
        }
    }
}
