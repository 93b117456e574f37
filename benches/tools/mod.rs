//! Other programs that copy directories, for the benches whose filesystems are strange.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How another program copies a directory.
struct Usage {
    name: &'static str,
    /// What makes it copy a directory to a name that is free.
    options: &'static [&'static str],
    /// Whether that needs a slash behind the source.
    slash: bool,
}

const USAGES: [Usage; 4] = [
    Usage {
        name: "cp",
        options: &["-r"],
        slash: false,
    },
    Usage {
        name: "rsync",
        options: &["-r"],
        slash: true,
    },
    Usage {
        name: "cpz",
        options: &[],
        slash: false,
    },
    Usage {
        name: "xcp",
        options: &["-r"],
        slash: false,
    },
];

/// A program that is here.
pub struct Tool {
    usage: Usage,
    program: PathBuf,
}

impl Tool {
    /// Those that are on `PATH` or in `POOLCP_PEERS`.
    pub fn all() -> impl Iterator<Item = Self> {
        USAGES.into_iter().filter_map(|usage| {
            let places = ["PATH", "POOLCP_PEERS"].into_iter().filter_map(env::var_os);
            let program = places
                .flat_map(|place| env::split_paths(&place).collect::<Vec<_>>())
                .map(|dir| dir.join(usage.name))
                .find(|program| program.is_file())?;
            Some(Self { usage, program })
        })
    }

    /// Its name and its options.
    pub fn name(&self) -> String {
        [&[self.usage.name], self.usage.options].concat().join(" ")
    }

    /// What copies `source` to `copy`.
    pub fn command(&self, source: &Path, copy: &Path) -> Command {
        let mut source = OsString::from(source);
        if self.usage.slash {
            source.push("/");
        }
        let mut command = Command::new(&self.program);
        command
            .args(self.usage.options)
            .args([&source, copy.as_os_str()]);
        command
    }
}
