//! What the kernel says of this process (proc_pid_status(5)). Both the library and the program have this file.

use std::fs::File;
use std::io::Read;

/// What stands behind a name in /proc/self/status, `Umask:` for example; `None` where /proc does not say.
pub fn own_status(name: &str) -> Option<String> {
    let mut file = File::open("/proc/self/status").ok()?;
    let mut text = Vec::new();
    // The groups of the process may be any number. Most names come in the first part, and each call takes its time.
    let mut part = [0; 4096];
    loop {
        let count = file.read(&mut part).ok()?;
        text.extend_from_slice(&part[..count]);
        // The last line may not be all there yet.
        let is_whole = |&line: &&[u8]| line.ends_with(b"\n");
        // The name of the process may be any bytes.
        let mut lines = text.split_inclusive(|&byte| byte == b'\n').filter(is_whole);
        if let Some(value) = lines.find_map(|line| line.strip_prefix(name.as_bytes())) {
            return str::from_utf8(value)
                .ok()
                .map(|value| value.trim().to_owned());
        }
        if count == 0 {
            return None;
        }
    }
}
