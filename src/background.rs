//! How much the rest of the machine comes first (`--background`).

use std::io;

use crate::sys;

/// Lets the rest of the machine go first: gives the calling thread, and all threads that it starts from now on, the lowest
/// priority for the processor (nice 19) and for disks (I/O class idle, where the device's scheduler knows priorities). A pool
/// that is built afterwards is in the background with all its workers; [`crate::PoolBuilder::background`] does the same to
/// the workers alone.
///
/// Only a privileged process can take it back.
///
/// # Errors
///
/// The system refuses one of the two, as some sandboxes do; the other one is set nevertheless.
///
/// ```
/// # std::thread::spawn(|| -> std::io::Result<()> {
/// poolcp::background()?;
/// let pool = poolcp::Pool::builder().threads(2).build().expect("two threads");
/// # drop(pool);
/// # Ok(())
/// # }).join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn background() -> io::Result<()> {
    let processor = sys::set_lowest_priority();
    let disks = sys::set_idle_io();
    processor.and(disks).map_err(io::Error::from)
}
