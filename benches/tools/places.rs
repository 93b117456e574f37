//! Where the benches look for other programs.

use std::env;
use std::path::PathBuf;

/// The directories of `POOLCP_PEERS`, then those of `PATH`.
pub fn places() -> Vec<PathBuf> {
    let lists = ["POOLCP_PEERS", "PATH"].into_iter().filter_map(env::var_os);
    lists
        .flat_map(|list| env::split_paths(&list).collect::<Vec<_>>())
        .collect()
}
