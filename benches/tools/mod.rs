//! Other programs that copy directories, for the benches whose filesystems are strange.

mod places;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use places::places;

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
    /// Those that are here.
    pub fn all() -> impl Iterator<Item = Self> {
        let places = places();
        USAGES.into_iter().filter_map(move |usage| {
            let mut programs = places.iter().map(|place| place.join(usage.name));
            let program = programs.find(|program| program.is_file())?;
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
