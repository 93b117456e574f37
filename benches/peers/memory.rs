//! Memory: that it is ready when the clock starts, and when what is in it is written back.

use std::fs;
use std::hint::black_box;

use crate::machine;

/// Has so many bytes of free memory backed by something, or all if there are fewer.
///
/// A virtual machine may give what lies free for seconds back to its host (the kernel's free page reporting, and balloons),
/// and gets it again page fault by page fault, half a second a GiB and more. Whoever runs after a pause, or behind somebody
/// who used little, would pay for that.
///
/// Not for ext4, and so not for others with images: with 2.5 GiB got ready, copies of 2 GiB took 0.4 or 1.3 s, by chance, and
/// twice the system time in the second case; with none, 0.36 to 0.74 s.
pub fn touch(bytes: u64) {
    let bytes = usize::try_from(bytes.min(machine::memory("MemFree"))).unwrap_or(0);
    let mut memory = Vec::new();
    if memory.try_reserve_exact(bytes).is_ok() {
        memory.resize(bytes, 1_u8);
    }
    drop(black_box(memory));
}

/// From how many bytes on that wait to be written the kernel begins to write; `None` if it does not say.
pub fn writing_back_from() -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    let pages = text
        .lines()
        .find_map(|line| line.strip_prefix("nr_dirty_background_threshold "))?;
    Some(pages.parse::<u64>().ok()? * rustix::param::page_size() as u64)
}
