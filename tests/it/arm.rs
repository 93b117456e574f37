//! A disk with an arm, which has to move to where it reads: what lies elsewhere takes long, what comes next takes next to nothing.
//!
//! An image in a directory that [`Passthrough`](crate::passthrough::Passthrough) shows with these [`Manners`] is such a disk. It
//! answers in the order in which it is asked, one at a time. Both the tests and the bench of disks that seek use it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fuser::FopenFlags;

use crate::passthrough::{Manners, Operation};

/// What is passed over in one turn of a disk, in bytes. To get further ahead, or back, the arm has to move.
const TURN: u64 = 1_250_000;

/// Bytes that pass by in a microsecond.
const PASSED: u64 = 150;

/// A shorter time is not worth a sleep.
const SHORTEST: Duration = Duration::from_micros(200);

/// The arm.
pub struct Arm {
    takes: Duration,
    moves: AtomicU64,
    at: Mutex<u64>,
}

impl Arm {
    /// One whose moves take so long.
    pub fn new(takes: Duration) -> Arc<Self> {
        Arc::new(Self {
            takes,
            moves: AtomicU64::new(0),
            at: Mutex::new(0),
        })
    }

    /// How often it has moved since this was asked last.
    pub fn take_moves(&self) -> u64 {
        self.moves.swap(0, Ordering::Relaxed)
    }

    /// A filesystem whose files are on the disk.
    pub fn manners(self: &Arc<Self>) -> Manners {
        let arm = Arc::clone(self);
        Manners {
            depth: 1,
            // The kernel must not keep what has been read, nor read ahead.
            open: FopenFlags::FOPEN_DIRECT_IO,
            refuse: Box::new(move |call| {
                if call.operation == Operation::Read {
                    arm.go_to(call.offset);
                }
                None
            }),
            ..Manners::default()
        }
    }

    fn go_to(&self, offset: u64) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = offset.checked_sub(*at).filter(|passed| *passed < TURN);
        let time = passed.map_or(self.takes, |passed| Duration::from_micros(passed / PASSED));
        if passed.is_none() {
            self.moves.fetch_add(1, Ordering::Relaxed);
        }
        if time >= SHORTEST {
            thread::sleep(time);
        }
        *at = offset;
    }
}
