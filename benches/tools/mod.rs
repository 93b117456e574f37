//! Other programs that copy directories, for the benches whose filesystems are strange.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Another program.
pub struct Tool {
    pub name: &'static str,
    /// What makes it copy a directory to a name that is free.
    pub options: &'static [&'static str],
    /// Whether that needs a slash behind the source.
    slash: bool,
}

impl Tool {
    /// All, whether they are here or not.
    pub const ALL: [Self; 4] = [
        Self {
            name: "cp",
            options: &["-r"],
            slash: false,
        },
        Self {
            name: "rsync",
            options: &["-r"],
            slash: true,
        },
        Self {
            name: "cpz",
            options: &[],
            slash: false,
        },
        Self {
            name: "xcp",
            options: &["-r"],
            slash: false,
        },
    ];

    /// Where it is, on `PATH` or in `POOLCP_PEERS`.
    pub fn find(&self) -> Option<PathBuf> {
        let places = ["PATH", "POOLCP_PEERS"].into_iter().filter_map(env::var_os);
        places
            .flat_map(|place| env::split_paths(&place).collect::<Vec<_>>())
            .map(|dir| dir.join(self.name))
            .find(|program| program.is_file())
    }

    /// What copies `source` to `copy`.
    pub fn command(&self, program: &Path, source: &Path, copy: &Path) -> Command {
        let mut source = OsString::from(source);
        if self.slash {
            source.push("/");
        }
        let mut command = Command::new(program);
        command.args(self.options).args([&source, copy.as_os_str()]);
        command
    }
}
