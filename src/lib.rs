//! Copies directory trees with a pool of workers.
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod context;
mod data;
mod dir;
mod error;
mod file;
mod handles;
mod links;
mod meta;
mod nest;
mod options;
mod plan;
mod pool;
mod quote;
mod report;
mod sys;
mod tree;

pub use context::Observer;
pub use error::{Error, Operation};
pub use options::{Follow, Options, Overwrite, Preserve, Reflink, Sparse, Xattrs};
pub use plan::{Plan, Progress, Root, Target};
pub use pool::{BuildError, Closed, Job, JobBuilder, JobError, JobId, Pool, PoolBuilder, Task};
pub use quote::quote;
pub use report::{Method, Report, Stats};
