//! Numbers and errors in words. Both the library and the program have this file.

use std::io;

/// A number with a comma between each three digits.
pub fn thousands(n: u64) -> String {
    if n < 1000 {
        return n.to_string();
    }
    format!("{},{:03}", thousands(n / 1000), n % 1000)
}

/// The system's words for an error. The standard library adds "(os error N)", which cp does not say.
pub fn without_number(error: &io::Error) -> String {
    let mut text = error.to_string();
    text.truncate(text.find(" (os error").unwrap_or(text.len()));
    text
}
