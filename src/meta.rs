//! A file's attributes: read from the source, given to the copy.
//!
//! They are given in an order that lets no one in early and loses nothing (each step may undo the next one's work, never
//! the one's before):
//! 1. **Owner and group.** chown(2) clears the setuid and setgid bits and file capabilities. Where the owner cannot be
//!    given, a program must not run as whoever copied it: the special bits are left out.
//! 2. **Extended attributes and ACLs.** Setting an ACL changes the permission bits.
//! 3. **Mode**, special bits included; and ACLs of NFSv4, which a change of the mode would change.
//! 4. **Times**, which every step before may have changed.
//!
//! If one fails the rest is still given, and the caller is told.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::context::Process;
use crate::difference::has_other_attributes;
use crate::error::{Failure, Operation};
use crate::options::{Effort, Options, Preserve};
use crate::sys::{self, Errno, Kind, Result, Stat, Times};

pub(crate) const ACCESS_ACL: &CStr = c"system.posix_acl_access";
const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
const CONTEXT: &CStr = c"security.selinux";

/// The ACLs of NFSv4, as clients and some filesystems name them (xattr.conf(5)). They say more than a mode, which is made of them.
const NFS4_ACLS: [&CStr; 2] = [c"system.nfs4_acl", c"system.nfs4acl"];

/// A file whose attributes are read or set.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// A name that cannot or must not be opened: a symbolic link, a FIFO, a socket, a device.
    Named(BorrowedFd<'a>, &'a OsStr),
}

/// The attributes that a copy is to keep.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    stat: Stat,
    /// ACLs among them.
    xattrs: Vec<(CString, Vec<u8>)>,
    /// The access ACL is among them, or there is none.
    acl_is_known: bool,
    /// What else the filesystem calls its own (`system.`), an ACL of another kind maybe, which is not copied.
    own: Vec<CString>,
}

/// The modes that new files were seen to get when they were made with them. Not every filesystem gives what the kernel asks
/// for: a server may take its own umask off as well, or give all files the same.
#[derive(Debug, Default)]
pub(crate) struct GivenModes([AtomicU64; 8]);

impl GivenModes {
    /// Whether a file that is made with the permission bits `mode` has them. The first one is `looked` at.
    pub(crate) fn include(&self, mode: u32, looked: impl FnOnce() -> Result<Stat>) -> bool {
        // A bit for each of the 512 modes.
        let word = &self.0[(mode >> 6 & 7) as usize];
        let bit = 1 << (mode & 63);
        if word.load(Ordering::Relaxed) & bit != 0 {
            return true;
        }
        let is_given = looked().is_ok_and(|stat| stat.mode == mode);
        if is_given {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        is_given
    }
}

/// What a file has already, be it new or found ([`Has::found`]), so that it need not be set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Has {
    /// The owner and the group.
    pub owner: Option<(u32, u32)>,
    /// The mode.
    pub mode: Option<u32>,
    /// It was made for its owner alone. This is the mode that it would have had, and gets unless the source's is kept.
    pub private_until: Option<u32>,
    /// It may have inherited an ACL.
    pub acl: bool,
    /// It was there before, with this mode, which lets in whom the new owner and the new group may not.
    pub old_mode: Option<u32>,
}

impl Has {
    /// What something has that was there before.
    pub(crate) fn found(stat: &Stat) -> Self {
        Self {
            owner: Some((stat.uid, stat.gid)),
            acl: true,
            old_mode: Some(stat.mode),
            ..Self::default()
        }
    }

    /// What a directory has whose entries are done: `found` is what it is now, if it was there before.
    pub(crate) fn of_dir(found: Option<&Stat>, acl: bool, private_until: Option<u32>) -> Self {
        Self {
            acl,
            private_until,
            ..found.map(Self::found).unwrap_or_default()
        }
    }
}

/// Whether a directory's new files inherit an ACL, or might.
pub(crate) fn has_default_acl(dir: BorrowedFd) -> bool {
    sys::has_xattr(dir, DEFAULT_ACL).unwrap_or(true)
}

/// Takes from a directory the ACLs that somebody else may have given it.
pub(crate) fn remove_acls(dir: BorrowedFd) -> sys::Result<()> {
    for name in [ACCESS_ACL, DEFAULT_ACL] {
        match sys::remove_xattr(dir, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

impl Attributes {
    /// Reads what `preserve` asks for. What cannot be read is told to `failed`.
    pub(crate) fn read(
        source: Subject,
        stat: &Stat,
        preserve: &Preserve,
        failed: &mut dyn FnMut(Failure),
    ) -> Self {
        let mut xattrs = Vec::new();
        let mut acl_is_known = true;
        let mut keep = |name: CString| match get(source, &name) {
            Ok(value) => xattrs.push((name, value)),
            // Gone since it was listed, or never there.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => {
                acl_is_known &= name.as_c_str() != ACCESS_ACL;
                if is_required(&name, preserve) {
                    failed(Failure {
                        operation: operation_on(&name),
                        errno,
                    });
                }
            }
        };
        let mut own = Vec::new();
        let mut unlisted = !preserve.any_xattrs();
        let mut list_error = None;
        if !unlisted {
            match list(source) {
                Ok(names) => {
                    for name in names {
                        if is_kept(&name, preserve) {
                            keep(name);
                        } else if name.to_bytes().starts_with(b"system.") && !is_acl(&name) {
                            own.push(name);
                        }
                    }
                }
                // ENOENT: a name needs /proc, or is gone.
                Err(Errno::OPNOTSUPP | Errno::NOENT) => {}
                Err(errno) => {
                    unlisted = true;
                    list_error = Some(errno);
                }
            }
        }
        // ACLs have known names.
        if unlisted && preserve.mode && stat.kind != Kind::Symlink {
            keep(ACCESS_ACL.to_owned());
            if stat.kind == Kind::Dir {
                keep(DEFAULT_ACL.to_owned());
            }
        }
        if let Some(errno) = list_error
            && preserve.xattrs == Effort::Required
        {
            failed(Failure {
                operation: Operation::Xattr,
                errno,
            });
        }
        Self {
            xattrs,
            acl_is_known,
            own,
            ..Self::without_xattrs(stat)
        }
    }

    /// What `stat` says.
    pub(crate) fn without_xattrs(stat: &Stat) -> Self {
        Self {
            stat: *stat,
            xattrs: Vec::new(),
            acl_is_known: true,
            own: Vec::new(),
        }
    }

    /// Whether a copy that was there has them all, so that it is best left alone: its change time would change.
    pub(crate) fn are_on(
        &self,
        dest: BorrowedFd,
        options: &Options,
        process: &Process,
    ) -> Result<bool> {
        let stat = sys::fstat(dest)?;
        if has_other_attributes(options, process.superuser, &self.stat, &stat) {
            return Ok(false);
        }
        let mut is_complete = true;
        let there = Self::read(Subject::Open(dest), &stat, &options.preserve, &mut |_| {
            is_complete = false
        });
        // A server shows an ACL of its own for every file.
        let compared = |all: &Self| -> Vec<_> {
            let compared = all.xattrs.iter().filter(|(name, _)| !is_nfs4_acl(name));
            compared.cloned().collect()
        };
        let mut acls = self.xattrs.iter().filter(|(name, _)| is_nfs4_acl(name));
        let has_acls = acls.all(|(name, value)| match sys::get_xattr(dest, name) {
            Ok(there) => there == *value,
            Err(errno) => errno == Errno::OPNOTSUPP,
        });
        let is_same = compared(self) == compared(&there);
        Ok(is_complete && self.acl_is_known && has_acls && is_same)
    }

    /// Whether two files agree in what is the filesystem's own and is not copied; these are of one of them.
    pub(crate) fn agree_in_own(&self, one: Subject, other: Subject) -> bool {
        self.own
            .iter()
            .all(|name| get(one, name) == get(other, name))
    }

    /// Whether there are some that the kernel changes when the data is written, as file capabilities are.
    pub(crate) fn change_with_data(&self) -> bool {
        self.xattrs.iter().any(|(name, _)| {
            name.as_c_str() != CONTEXT && name.to_bytes().starts_with(b"security.")
        })
    }

    /// Gives them to the copy, in the module's order. What fails first, in the order of [`rank`], is told to `failed`: the
    /// others usually fail for the same reason, and `cp` stops there.
    pub(crate) fn give(
        &self,
        dest: Subject,
        preserve: &Preserve,
        process: &Process,
        has: Has,
        failed: &mut dyn FnMut(Failure),
    ) {
        let mut first: Option<Failure> = None;
        self.give_all(dest, preserve, process, has, &mut |failure| {
            if first.is_none_or(|first| rank(failure.operation) < rank(first.operation)) {
                first = Some(failure);
            }
        });
        first.into_iter().for_each(failed);
    }

    fn give_all(
        &self,
        dest: Subject,
        preserve: &Preserve,
        process: &Process,
        has: Has,
        failed: &mut dyn FnMut(Failure),
    ) {
        let mut mode = self.stat.mode;
        let mut private_until = has.private_until;
        let mut has_owner = true;
        if preserve.ownership && has.owner != Some((self.stat.uid, self.stat.gid)) {
            if preserve.mode
                && self.stat.kind != Kind::Symlink
                && let Some(old) = has.old_mode
            {
                let needed = if self.stat.kind == Kind::Dir {
                    0o700
                } else {
                    0
                };
                let narrow = old & self.stat.mode & 0o700 | needed;
                if narrow != old {
                    // It gets its mode at the end; if this is refused, so is that, which is told.
                    let _ = set_mode(dest, narrow);
                }
            }
            match self.give_owner(dest, process) {
                Ok(true) => {}
                // In a directory the sticky bit gives nobody a right.
                Ok(false) if self.stat.kind == Kind::Dir => mode &= 0o1777,
                Ok(false) => mode &= 0o777,
                Err(errno) => {
                    // Who has the group's bits is unknown.
                    has_owner = false;
                    mode &= 0o700;
                    private_until = private_until.map(|mode| mode & 0o700);
                    failed(Failure {
                        operation: Operation::Ownership,
                        errno,
                    });
                }
            }
        }
        let group = self.give_xattrs(dest, preserve, has, failed);
        if preserve.mode {
            let group = if self.acl_is_known { group } else { 0 };
            mode &= !0o070 | group;
        }
        let mode = if preserve.mode {
            Some(mode)
        } else {
            private_until
        };
        if let Some(mode) = mode
            && self.stat.kind != Kind::Symlink
            && has.mode != Some(mode)
            && let Err(errno) = set_mode(dest, mode)
        {
            failed(Failure {
                operation: Operation::Permissions,
                errno,
            });
        }
        let acls = self.xattrs.iter();
        for (name, value) in acls.filter(|(name, _)| has_owner && is_nfs4_acl(name)) {
            match set(dest, name, value) {
                // Another kind of filesystem.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(errno) => failed(Failure {
                    operation: Operation::Permissions,
                    errno,
                }),
            }
        }
        if preserve.timestamps
            && let Err(errno) = set_times(dest, self.stat.times)
        {
            failed(Failure {
                operation: Operation::Times,
                errno,
            });
        }
    }

    /// Whether the owner is right now. A user who may not give files away is not told so, as with `cp -p`; the group is
    /// then given if at all possible.
    fn give_owner(&self, dest: Subject, process: &Process) -> Result<bool> {
        match set_owner(dest, Some(self.stat.uid), Some(self.stat.gid)) {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::INVAL) if !process.superuser => {
                // Members of a group may give it to their own files; anyone else keeps what they have.
                let _ = set_owner(dest, None, Some(self.stat.gid));
                Ok(false)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Gives them, and says which of the group's bits there may be in the mode: with an ACL they are the limit of what it gives,
    /// without it they would be the group's rights.
    fn give_xattrs(
        &self,
        dest: Subject,
        preserve: &Preserve,
        has: Has,
        failed: &mut dyn FnMut(Failure),
    ) -> u32 {
        let mut group = 0o070;
        for (name, value) in self.xattrs.iter().filter(|(name, _)| !is_nfs4_acl(name)) {
            let Err(errno) = set(dest, name, value) else {
                continue;
            };
            if name.as_c_str() == ACCESS_ACL {
                let has_none = errno == Errno::OPNOTSUPP;
                group &= if has_none { group_rights(value) } else { 0 };
            }
            if is_required(name, preserve) {
                failed(Failure {
                    operation: operation_on(name),
                    errno,
                });
            }
        }
        if self.stat.kind == Kind::Symlink || !has.acl {
            return group;
        }
        let unwanted: &[&CStr] = if preserve.mode {
            &[ACCESS_ACL, DEFAULT_ACL]
        } else if preserve.default_mode && has.private_until.is_some() {
            // A new file that is to have the default mode does not keep an ACL that it has inherited.
            &[ACCESS_ACL]
        } else {
            &[]
        };
        for name in unwanted {
            let is_kept = self.xattrs.iter().any(|(kept, _)| kept.as_c_str() == *name);
            if is_kept || (*name == DEFAULT_ACL && self.stat.kind != Kind::Dir) {
                continue;
            }
            match remove(dest, name) {
                // Nothing inherited is the usual case.
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => {
                    // Whom the ACL names is limited by the same bits.
                    if *name == ACCESS_ACL {
                        group = 0;
                    }
                    failed(Failure {
                        operation: Operation::Permissions,
                        errno,
                    });
                }
            }
        }
        group
    }
}

/// The order in which `cp` gives attributes.
fn rank(operation: Operation) -> u8 {
    match operation {
        Operation::Times => 0,
        Operation::Ownership => 1,
        Operation::Xattr => 2,
        _ => 3,
    }
}

/// Whether an attribute that cannot be kept is an error.
fn is_required(name: &CStr, preserve: &Preserve) -> bool {
    match effort(name, preserve) {
        Effort::Required => true,
        Effort::IfPossible | Effort::No => is_acl(name),
    }
}

fn effort(name: &CStr, preserve: &Preserve) -> Effort {
    if name == CONTEXT {
        preserve.context
    } else {
        preserve.xattrs
    }
}

/// The rights of a file's group by an ACL, where a mode has them (acl(5), posix_acl_xattr.h: after a header a tag, rights and an id
/// for each).
fn group_rights(acl: &[u8]) -> u32 {
    const GROUP_OBJ: u16 = 0x04;
    const MASK: u16 = 0x10;
    let entries = acl.get(4..).unwrap_or_default().chunks_exact(8);
    let number = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
    let entries = entries.map(|entry| (number(entry), number(&entry[2..])));
    let limits = entries.filter(|(tag, _)| [GROUP_OBJ, MASK].contains(tag));
    let rights = limits.fold(None, |all, (_, rights)| Some(all.unwrap_or(7) & rights));
    u32::from(rights.unwrap_or(0) & 7) << 3
}

fn is_acl(name: &CStr) -> bool {
    name == ACCESS_ACL || name == DEFAULT_ACL
}

fn is_nfs4_acl(name: &CStr) -> bool {
    NFS4_ACLS.contains(&name)
}

fn operation_on(name: &CStr) -> Operation {
    if is_acl(name) {
        Operation::Permissions
    } else {
        Operation::Xattr
    }
}

/// ACLs belong to the mode. The rest of `system.` is the filesystem's own view of other attributes and is left out.
fn is_kept(name: &CStr, preserve: &Preserve) -> bool {
    if is_acl(name) || is_nfs4_acl(name) {
        return preserve.mode;
    }
    let is_left_out = || {
        NOT_COPIED
            .iter()
            .any(|name_starts| name.to_bytes().starts_with(name_starts))
    };
    effort(name, preserve) != Effort::No && !is_left_out()
}

/// How the names of attributes begin that belong to one inode or one filesystem, or are another view of what is kept anyway
/// (xattr.conf(5)): xfs, say, shows ACLs as `trusted.SGI_ACL_FILE`, too.
const NOT_COPIED: [&[u8]; 6] = [
    b"system.",
    b"trusted.SGI_",
    b"xfsroot.",
    b"security.evm",
    b"afs.",
    b"user.Beagle.",
];

fn list(subject: Subject) -> Result<Vec<CString>> {
    match subject {
        Subject::Open(fd) => sys::list_xattrs(fd),
        Subject::Named(dir, name) => sys::list_xattrs_at(dir, name),
    }
}

fn get(subject: Subject, attribute: &CStr) -> Result<Vec<u8>> {
    match subject {
        Subject::Open(fd) => sys::get_xattr(fd, attribute),
        Subject::Named(dir, name) => sys::get_xattr_at(dir, name, attribute),
    }
}

fn set(subject: Subject, attribute: &CStr, value: &[u8]) -> Result<()> {
    match subject {
        Subject::Open(fd) => sys::set_xattr(fd, attribute, value),
        Subject::Named(dir, name) => sys::set_xattr_at(dir, name, attribute, value),
    }
}

fn remove(subject: Subject, attribute: &CStr) -> Result<()> {
    match subject {
        Subject::Open(fd) => sys::remove_xattr(fd, attribute),
        Subject::Named(dir, name) => sys::remove_xattr_at(dir, name, attribute),
    }
}

fn set_owner(subject: Subject, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    match subject {
        Subject::Open(fd) => sys::set_owner(fd, uid, gid),
        Subject::Named(dir, name) => sys::set_owner_at(dir, name, uid, gid),
    }
}

fn set_mode(subject: Subject, mode: u32) -> Result<()> {
    match subject {
        Subject::Open(fd) => sys::set_mode(fd, mode),
        Subject::Named(dir, name) => sys::set_mode_at(dir, name, mode),
    }
}

fn set_times(subject: Subject, times: Times) -> Result<()> {
    match subject {
        Subject::Open(fd) => sys::set_times(fd, times),
        Subject::Named(dir, name) => sys::set_times_at(dir, name, times),
    }
}
