//! Numbers of bytes as people type them: `500K`, `1.5MB`, `2GiB`.
//!
//! 1. A number without a suffix is bytes.
//! 2. K, M, G, T, P and E are powers of 1024, as for rsync, dd and ls; so are KiB, MiB and so on.
//! 3. KB, MB, GB and so on are powers of 1000. (dd writes kB; either case will do everywhere.)
//! 4. Decimal places may be used where the result is a whole number of bytes, or else it is cut to one.

/// The first letters of the suffixes, in the order of their powers.
const LETTERS: &[u8] = b"kmgtpe";

/// So many decimal places are read: a byte more or less in a petabyte.
const PLACES: usize = 15;

/// The number of bytes that a text says; `None` if it says none, or more than there can be.
pub fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let unit = u128::from(unit(suffix)?);
    let (whole, places) = number.split_once('.').unwrap_or((number, ""));
    let is_number = !whole.is_empty() || !places.is_empty();
    if !is_number || places.contains('.') || places.len() > PLACES {
        return None;
    }
    let digits = |digits: &str| match digits {
        "" => Some(0),
        digits => digits.parse::<u64>().ok(),
    };
    let scale = 10_u128.pow(u32::try_from(places.len()).ok()?);
    // Neither can overflow: below 2^64 * 2^60 and 10^15 * 2^60.
    let sum = u128::from(digits(whole)?) * unit + u128::from(digits(places)?) * unit / scale;
    u64::try_from(sum).ok()
}

fn unit(suffix: &str) -> Option<u64> {
    let suffix = suffix.to_ascii_lowercase();
    let (letter, base) = match suffix.as_bytes() {
        [] | [b'b'] => return Some(1),
        [letter] | [letter, b'i', b'b'] => (letter, 1024_u64),
        [letter, b'b'] => (letter, 1000),
        _ => return None,
    };
    let power = LETTERS.iter().position(|known| known == letter)? + 1;
    base.checked_pow(u32::try_from(power).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_those_of_the_tools_that_people_know() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1),
            ("7b", 7),
            ("1K", 1 << 10),
            ("1k", 1 << 10),
            ("1KiB", 1 << 10),
            ("1kB", 1000),
            ("1KB", 1000),
            ("50M", 50 << 20),
            ("50MB", 50_000_000),
            ("2GiB", 2 << 30),
            ("1T", 1 << 40),
            ("1PB", 1_000_000_000_000_000),
            ("15E", 15 << 60),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn decimal_places_are_exact() {
        assert_eq!(bytes("1.5M"), Some(3 << 19));
        assert_eq!(bytes(".5K"), Some(512));
        assert_eq!(bytes("0.1MB"), Some(100_000));
        assert_eq!(bytes("1.9"), Some(1));
        assert_eq!(bytes("2.K"), Some(2048));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            ".",
            "M",
            "1.2.3",
            "-1",
            "+1",
            "1 K",
            "1KK",
            "1iB",
            "1x",
            "1Kib/s",
            "1e3",
            "0x10",
            "16E",
            "18446744073709551616",
            "1,5M",
            "١",
            "0.0000000000000001K",
        ] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
