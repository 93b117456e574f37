//! Memory: that it stays in the machine, and when what is in it is written back.

use std::fs::{self, File};
use std::io::{self, Write};

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

use crate::machine;

/// Left for everything else while memory is fetched.
const REST: u64 = 2 << 30;

/// Free memory is given back in blocks of this size (`pageblock_order` in the kernel's sources, mm/page_reporting.h).
const BLOCK: u64 = 2 << 20;

/// Whether compaction makes large blocks of small ones in the background, and how eagerly (Documentation/admin-guide/sysctl/vm.rst).
const COMPACTION: &str = "/proc/sys/vm/compaction_proactiveness";

/// Keeps the machine's memory in the machine.
///
/// A virtual machine may give what lies free for two seconds back to its host (free page reporting), and gets it again page
/// fault by page fault. On one such machine that took 2.3 s a GiB, and so whoever copied after a pause, or behind somebody who
/// used little, took up to three times as long as the others.
///
/// Only whole blocks are given back. So all free memory is fetched once, and all but a page in each half block is freed
/// again.
pub struct Kept {
    pages: File,
    /// What is to be written back in the end. A bench that is killed leaves compaction off.
    compaction: Option<String>,
}

impl Kept {
    /// # Errors
    ///
    /// The memory cannot be had.
    pub fn new() -> io::Result<Self> {
        let compaction = fs::read_to_string(COMPACTION).ok();
        let stopped = compaction.is_some() && fs::write(COMPACTION, "0").is_ok();
        let mut kept = Self {
            pages: File::from(memfd_create("kept", MemfdFlags::CLOEXEC)?),
            compaction: compaction.filter(|_| stopped),
        };
        kept.fetch()?;
        Ok(kept)
    }

    /// Fetches all free memory, and frees all but a page in each half block.
    fn fetch(&mut self) -> io::Result<()> {
        let page = rustix::param::page_size() as u64;
        let step = BLOCK / 2;
        let steps = machine::memory("MemAvailable").saturating_sub(REST) / step;
        let zeros = vec![0; usize::try_from(step).map_err(io::Error::other)?];
        for _ in 0..steps {
            self.pages.write_all(&zeros)?;
        }
        for at in (0..steps).map(|number| number * step) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&self.pages, flags, at + page, step - page)?;
        }
        Ok(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(before) = &self.compaction {
            // It was written a moment ago.
            let _ = fs::write(COMPACTION, before);
        }
    }
}

/// Whether this is a virtual machine that gives free memory back to its host: the balloon's sixth feature
/// (`VIRTIO_BALLOON_F_REPORTING` in the VIRTIO specification).
pub fn is_given_back() -> bool {
    let devices = fs::read_dir("/sys/bus/virtio/drivers/virtio_balloon");
    devices.into_iter().flatten().flatten().any(|device| {
        let features = fs::read(device.path().join("features")).unwrap_or_default();
        features.get(5) == Some(&b'1')
    })
}

/// From how many bytes on that wait to be written the kernel begins to write; `None` if it does not say.
pub fn writing_back_from() -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    let pages = text
        .lines()
        .find_map(|line| line.strip_prefix("nr_dirty_background_threshold "))?;
    Some(pages.parse::<u64>().ok()? * rustix::param::page_size() as u64)
}
